"""From the bytes of an artifact to its files, in memory: a pure-Python wheel, or one ``.py`` module.

A zip file is a list of claims by whoever wrote it. None is believed: sizes are counted while inflating, and a name that
could mean anything but one plain file inside the wheel refuses the whole artifact. Time and memory are bounded by the
size of the content and by MAX_UNPACKED_BYTES, whatever the bytes are.
"""

from __future__ import annotations

import io
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from typing import Final

from oneiric.errors import ManifestError

MAX_FILES: Final = 5_000
MAX_UNPACKED_BYTES: Final = 64 * 1024 * 1024
_MAX_PATH: Final = 255
_MAX_DEPTH: Final = 20

_PIP: Final = "install this one with pip; an artifact is a pure-Python wheel (py3-none-any) or one .py file"
_REBUILD: Final = "build it again with: python -m build --wheel; then publish it under its new digest"

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+!-]{0,199}\.(?:whl|py)")
_MODULE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\.py")
_PLAIN: Final = re.compile(r"[A-Za-z0-9._+!/:-]+")
_NATIVE: Final = re.compile(r".*\.(?:so(?:\.[0-9]+)*|pyd|dylib|dll)")
_TAGS: Final = frozenset({"py2-none-any", "py3-none-any"})
# What zipfile raises on bytes that are not a zip file it can read.
_UNREADABLE: Final = (
    zipfile.BadZipFile,
    struct.error,
    ValueError,
    NotImplementedError,
    OverflowError,
    OSError,
    EOFError,
)


def read_artifact(name: str, content: bytes) -> dict[str, bytes]:
    """Return the files of the artifact *name*, by their path inside it.

    *name* is its file name as published; the ending says what it is: ``.whl``, or ``.py`` for a single module.

    Raises:
        ManifestError: it is not one we import. ``reason`` is one of ``name malformed path duplicate link startup-file
            native encrypted compression size count tags scripts``.
    """
    if not _NAME.fullmatch(name):
        raise _refusal(printable(name), "the name is not that of a wheel or a .py file", "name", _PIP)
    if len(content) > MAX_UNPACKED_BYTES:
        raise _refusal(name, f"it is larger than {MAX_UNPACKED_BYTES:,} bytes", "size", _PIP)
    if name.endswith(".whl"):
        return _Wheel(name, content).read()
    if not _MODULE.fullmatch(name):
        raise _refusal(name, "no module can be imported by this name", "name", "name it like a module: shop_cache.py")
    return {name: content}


def _refusal(name: str, what: str, reason: str, hint: str) -> ManifestError:
    return ManifestError(f"artifact {name}: {what}", reason=reason, hint=hint)


def printable(text: str) -> str:
    """Return *text*, which a stranger chose, as one short word that is safe to print."""
    short = text if len(text) <= 80 else f"{text[:77]}..."
    return short if _PLAIN.fullmatch(short) else ascii(short)


class _Wheel:
    """One wheel being read; it knows its own name for the messages."""

    def __init__(self, name: str, content: bytes) -> None:
        self._name = name
        self._content = content

    def read(self) -> dict[str, bytes]:
        entries = self._entries()
        for entry in entries:
            self._check_path(entry)
            self._check_kind(entry)
        files = [entry for entry in entries if not entry.is_dir()]
        self._check_names(entries, files)
        unpacked = dict(self._unpack(files))
        self._check_metadata(unpacked)
        return unpacked

    def _refuse(self, what: str, reason: str = "malformed", hint: str = _REBUILD) -> ManifestError:
        return _refusal(self._name, what, reason, hint)

    def _entries(self) -> list[zipfile.ZipInfo]:
        # Each entry of the directory has this signature: their number is bounded before zipfile makes objects of them.
        if self._content.count(b"PK\x01\x02") > MAX_FILES:
            raise self._refuse(f"it has more than {MAX_FILES:,} files", "count", _PIP)
        if not self._content.startswith(b"PK\x03\x04"):
            raise self._refuse("it is not a wheel: it does not begin as a zip file")
        try:
            with zipfile.ZipFile(io.BytesIO(self._content)) as archive:
                return archive.infolist()
        except _UNREADABLE as error:
            raise self._refuse(f"it is not a wheel: {printable(str(error))}") from error

    def _check_path(self, entry: zipfile.ZipInfo) -> None:
        path = entry.orig_filename  # zipfile cuts `filename` at a NUL
        parts = path.removesuffix("/").split("/")
        if len(path) > _MAX_PATH or len(parts) > _MAX_DEPTH:
            limits = f"{_MAX_PATH} characters and {_MAX_DEPTH} parts"
            raise self._refuse(f"the path {printable(path)} has more than {limits}", "path")
        if not path.isprintable() or "\\" in path or ":" in path or any(part in ("", ".", "..") for part in parts):
            raise self._refuse(f"{printable(path)} is not a plain path inside the wheel", "path")
        lowered = parts[-1].lower()
        if lowered.endswith(".pth"):
            raise self._refuse(f"{printable(path)} would run at every start of Python", "startup-file", _PIP)
        if _NATIVE.fullmatch(lowered):
            raise self._refuse(f"{printable(path)} is native, which cannot be imported from memory", "native", _PIP)
        if parts[0].lower().endswith(".data"):
            raise self._refuse(f"{printable(path)} is to be installed outside its package", "scripts", _PIP)

    def _check_kind(self, entry: zipfile.ZipInfo) -> None:
        shown = printable(entry.orig_filename)
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise self._refuse(f"{shown} is a link or a device, not a file", "link")
        if entry.flag_bits & (0x0001 | 0x0040 | 0x2000):
            raise self._refuse(f"{shown} is encrypted", "encrypted")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self._refuse(f"{shown} is neither stored nor deflated", "compression")
        if entry.is_dir() and (entry.file_size or entry.compress_size):
            raise self._refuse(f"{shown} is a directory with content")

    def _check_names(self, entries: list[zipfile.ZipInfo], files: list[zipfile.ZipInfo]) -> None:
        """Refuse two names that are one on some file system, and a file where others need a directory."""
        seen: dict[str, str] = {}
        for entry in entries:
            path = entry.filename
            twin = seen.setdefault(_folded(path.removesuffix("/")), path)
            if twin is not path:
                raise self._refuse(f"{printable(twin)} and {printable(path)} are the same name", "duplicate")
        taken = {_folded(entry.filename) for entry in files}
        for entry in entries:
            folder = _folded(entry.filename.removesuffix("/"))
            while "/" in folder:
                folder = folder.rpartition("/")[0]
                if folder in taken:
                    raise self._refuse(f"{printable(folder)} is both a file and a directory", "duplicate")

    def _unpack(self, files: list[zipfile.ZipInfo]) -> Iterator[tuple[str, bytes]]:
        # Entries that share compressed bytes could make us inflate them over and over.
        if sum(entry.compress_size for entry in files) > len(self._content):
            raise self._refuse("its entries overlap", "size")
        left = MAX_UNPACKED_BYTES
        for entry in files:
            if entry.file_size > left:
                raise self._refuse(f"it unpacks to more than {MAX_UNPACKED_BYTES:,} bytes", "size", _PIP)
            unpacked = self._inflate(entry)
            left -= len(unpacked)
            yield entry.filename, unpacked

    def _inflate(self, entry: zipfile.ZipInfo) -> bytes:
        """Return the content of *entry*, which must be exactly what the directory says of it."""
        shown = printable(entry.filename)
        packed = self._packed(entry)
        if entry.compress_type == zipfile.ZIP_STORED:
            unpacked, complete = bytes(packed), True
        else:
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                unpacked = inflater.decompress(packed, entry.file_size + 1)
            except zlib.error as error:
                raise self._refuse(f"{shown} is damaged: {error}") from error
            complete = inflater.eof and not inflater.unused_data
        if len(unpacked) != entry.file_size or not complete:
            raise self._refuse(f"{shown} is not as long as the wheel says", "size")
        if zlib.crc32(unpacked) != entry.CRC:
            raise self._refuse(f"{shown} is damaged: its checksum differs")
        return unpacked

    def _packed(self, entry: zipfile.ZipInfo) -> memoryview:
        """Return the compressed bytes of *entry*, if its own header agrees with the directory on its name."""
        name = entry.orig_filename.encode("utf-8" if entry.flag_bits & 0x0800 else "cp437")
        begin = max(entry.header_offset, 0)
        header = self._content[begin : begin + 30 + len(name)]
        if len(header) != 30 + len(name) or header[:4] != b"PK\x03\x04" or header[30:] != name:
            raise self._refuse(f"{printable(entry.filename)} is not where the wheel says")
        name_length, extra_length = struct.unpack_from("<HH", header, 26)
        if name_length != len(name):
            raise self._refuse(f"{printable(entry.filename)} has two names")
        start = begin + 30 + name_length + extra_length
        return memoryview(self._content)[start : start + entry.compress_size]

    def _check_metadata(self, files: dict[str, bytes]) -> None:
        found = [path for path in files if path.count("/") == 1 and path.endswith(".dist-info/WHEEL")]
        if len(found) != 1:
            raise self._refuse("it is not a wheel: it needs one .dist-info/WHEEL")
        lines = files[found[0]].decode("utf-8", "replace").splitlines()
        fields = [(key.strip().lower(), value.strip()) for key, _, value in (line.partition(":") for line in lines)]
        tags = {value for key, value in fields if key == "tag"}
        if ("root-is-purelib", "true") not in fields or "py3-none-any" not in tags or not tags <= _TAGS:
            built_for = printable(", ".join(sorted(tags)) or "nothing")
            raise self._refuse(f"it is built for {built_for}, not for any Python 3 (py3-none-any)", "tags", _PIP)
        if not any(key == "wheel-version" and value.startswith("1.") for key, value in fields):
            raise self._refuse("its Wheel-Version is not 1.x", "tags")


def _folded(path: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())
