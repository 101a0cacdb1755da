"""A wheel is read whole or refused whole, in bounded time and memory, with a reason and a remedy."""

from __future__ import annotations

import io
import stat
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterable
from time import process_time

import pytest

from oneiric.errors import ManifestError
from oneiric.remote.wheel import MAX_FILES, MAX_UNPACKED_BYTES, read_artifact
from tests.remote.wheels import METADATA, NAME, archive, wheel

MEBIBYTE = 1024 * 1024


def entry(path: str, *, mode: int = 0o644, kind: int = stat.S_IFREG) -> zipfile.ZipInfo:
    """Return the header of a file of a given kind."""
    info = zipfile.ZipInfo(path)
    info.external_attr = (kind | mode) << 16
    return info


def zipped(entries: Iterable[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    """Return a wheel with *entries*, whatever they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        target.writestr("shop-1.0.dist-info/WHEEL", METADATA)
        for info, content in entries:
            target.writestr(info, content)
    return buffer.getvalue()


def forged(
    path: str,
    packed: bytes,
    *,
    size: int,
    method: int = 8,
    checksum: int = 0,
    flags: int = 0,
    local: str = "",
    declared: int = -1,
) -> bytes:
    """Return a wheel with one more entry whose headers say what they are told to."""
    honest = wheel({"shop/__init__.py": ""})
    name, local_name = path.encode(), (local or path).encode()
    declared = len(packed) if declared < 0 else declared
    common = struct.pack("<HHHHIII", flags, method, 0, 33, checksum, declared, size)
    head = struct.pack("<4sH", b"PK\3\4", 20) + common + struct.pack("<HH", len(local_name), 0) + local_name + packed
    end = honest.rfind(b"PK\5\6")
    count, length, start = struct.unpack_from("<HII", honest, end + 10)
    directory = honest[start : start + length]
    directory += struct.pack("<4sHH", b"PK\1\2", 20, 20) + common
    directory += struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0o100644 << 16, start) + name
    closing = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count + 1, count + 1, len(directory), start + len(head), 0)
    return honest[:start] + head + directory + closing


def deflated(content: bytes) -> bytes:
    """Return *content* as a zip file holds it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


def zeros(mebibytes: int) -> bytes:
    """Return that many zeros, deflated to a thousandth."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return (packer.compress(bytes(MEBIBYTE)) + packer.flush(zlib.Z_FULL_FLUSH)) * mebibytes + packer.flush()


def bomb(claims: int = 200 * MEBIBYTE) -> bytes:
    """Return a wheel of 200 kB that unpacks to 200 MiB, whatever it claims."""
    return forged("shop/a.bin", zeros(200), size=claims)


def overlapping(count: int) -> bytes:
    """Return a zip file whose many entries share the same compressed bytes."""
    honest = archive({"shop/a.bin": bytes(MEBIBYTE)})
    end = honest.rfind(b"PK\5\6")
    start = struct.unpack_from("<I", honest, end + 16)[0]
    one = honest[start:end]
    directory = b"".join(one.replace(b"shop/a.bin", b"%010d" % n) for n in range(count))
    closing = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, len(directory), start, 0)
    return honest[:start] + directory + closing


def encrypted() -> bytes:
    return forged("shop/secret.py", b"x" * 12, size=12, method=0, flags=1, checksum=zlib.crc32(b"x" * 12))


TEXT = b"x = 1\n" * 50
SUM = zlib.crc32(TEXT)
CORPUS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "empty": ("malformed", lambda: b""),
    "text": ("malformed", lambda: b"x = 1\n"),
    "cut short": ("malformed", lambda: wheel({"shop/__init__.py": ""})[:-30]),
    "empty archive": ("malformed", lambda: archive({})),
    "end record alone": ("malformed", lambda: b"PK\3\4" + struct.pack("<4s8xIIH", b"PK\5\6", 2**32 - 1, 2**32 - 1, 0)),
    "text before the archive": ("malformed", lambda: b"#!/bin/sh\n" + wheel({"shop/__init__.py": ""})),
    "no metadata": ("malformed", lambda: archive({"shop/__init__.py": ""})),
    "two sets of metadata": ("malformed", lambda: wheel({"other-1.0.dist-info/WHEEL": METADATA})),
    "metadata too deep": ("malformed", lambda: archive({"shop/shop-1.0.dist-info/WHEEL": METADATA})),
    "parent": ("path", lambda: zipped([(entry("../evil.py"), b"")])),
    "parent in the middle": ("path", lambda: zipped([(entry("shop/../../evil.py"), b"")])),
    "parent at the end": ("path", lambda: zipped([(entry("shop/.."), b"")])),
    "parent directory": ("path", lambda: zipped([(entry("shop/../", kind=stat.S_IFDIR), b"")])),
    "dot": ("path", lambda: zipped([(entry("shop/./a.py"), b"")])),
    "absolute": ("path", lambda: zipped([(entry("/etc/evil.py"), b"")])),
    "network share": ("path", lambda: zipped([(entry("//host/evil.py"), b"")])),
    "empty part": ("path", lambda: zipped([(entry("shop//a.py"), b"")])),
    "empty name": ("path", lambda: forged("", b"", size=0, method=0)),
    "backslash": ("path", lambda: zipped([(entry("shop\\..\\evil.py"), b"")])),
    "drive": ("path", lambda: zipped([(entry("C:/evil.py"), b"")])),
    "drive alone": ("path", lambda: zipped([(entry("c:evil.py"), b"")])),
    "stream": ("path", lambda: zipped([(entry("shop/a.py:evil"), b"")])),
    "newline": ("path", lambda: zipped([(entry("shop/a\n.py"), b"")])),
    "escape sequence": ("path", lambda: zipped([(entry("shop/\x1b[2J.py"), b"")])),
    "NUL": ("path", lambda: forged("shop/a.py\0.txt", TEXT, size=len(TEXT), method=0, checksum=SUM)),
    "very long name": ("path", lambda: zipped([(entry("shop/" + "a/" * 5000 + "b.py"), b"")])),
    "very deep": ("path", lambda: zipped([(entry("a/" * 30 + "b.py"), b"")])),
    "same name twice": ("duplicate", lambda: forged("shop/__init__.py", b"", size=0, method=0)),
    "names that differ in case": ("duplicate", lambda: zipped([(entry("shop/A.py"), b""), (entry("shop/a.py"), b"")])),
    "folders that differ in case": ("duplicate", lambda: zipped([(entry("Shop"), b""), (entry("shop/a.py"), b"")])),
    "names that are one in Unicode": (
        "duplicate",
        lambda: zipped([(entry("shop/\ufb01.py"), b""), (entry("shop/fi.py"), b"")]),
    ),
    "names composed differently": (
        "duplicate",
        lambda: zipped([(entry("shop/\xe9.py"), b""), (entry("shop/e\u0301.py"), b"")]),
    ),
    "file and directory": ("duplicate", lambda: zipped([(entry("shop/a"), b""), (entry("shop/a/b.py"), b"")])),
    "file and empty directory": (
        "duplicate",
        lambda: zipped([(entry("shop/a"), b""), (entry("shop/a/", kind=stat.S_IFDIR), b"")]),
    ),
    "directory below a file": (
        "duplicate",
        lambda: zipped([(entry("shop/a"), b""), (entry("shop/a/b/", kind=stat.S_IFDIR), b"")]),
    ),
    "symbolic link": ("link", lambda: zipped([(entry("shop/a.py", kind=stat.S_IFLNK), b"/etc/passwd")])),
    "pipe": ("link", lambda: zipped([(entry("shop/a.py", kind=stat.S_IFIFO), b"")])),
    "device": ("link", lambda: zipped([(entry("shop/a.py", kind=stat.S_IFCHR), b"")])),
    "startup file": ("startup-file", lambda: wheel({"evil.pth": "import os"})),
    "startup file in capitals": ("startup-file", lambda: wheel({"shop/EVIL.PTH": "import os"})),
    "native for Linux": ("native", lambda: wheel({"shop/fast.cpython-311-x86_64-linux-gnu.so": b"\x7fELF"})),
    "native with a version": ("native", lambda: wheel({"shop.libs/libz.so.1.2": b"\x7fELF"})),
    "native for Windows": ("native", lambda: wheel({"shop/fast.pyd": b"MZ"})),
    "native in capitals": ("native", lambda: wheel({"shop/Z.DLL": b"MZ"})),
    "native for macOS": ("native", lambda: wheel({"shop/.dylibs/libz.dylib": b""})),
    "scripts": ("scripts", lambda: wheel({"shop-1.0.data/scripts/shop": "#!python"})),
    "headers": ("scripts", lambda: wheel({"shop-1.0.data/headers/shop.h": ""})),
    "encrypted": ("encrypted", encrypted),
    "bzip2": ("compression", lambda: archive({"shop/a.py": TEXT}, compression=zipfile.ZIP_BZIP2)),
    "LZMA": ("compression", lambda: archive({"shop/a.py": TEXT}, compression=zipfile.ZIP_LZMA)),
    "unknown compression": ("compression", lambda: forged("shop/a.bin", TEXT, size=len(TEXT), method=99)),
    "bomb": ("size", bomb),
    "bomb that claims what is allowed": ("size", lambda: bomb(60 * MEBIBYTE)),
    "bomb that claims little": ("size", lambda: bomb(100)),
    "bomb that claims nothing": ("size", lambda: bomb(0)),
    "bomb of many files": ("size", lambda: wheel({f"shop/{n}.bin": bytes(MEBIBYTE) for n in range(65)})),
    "overlapping entries": ("size", lambda: overlapping(4000)),
    "longer than it claims": (
        "size",
        lambda: forged("shop/a.bin", deflated(TEXT), size=6, checksum=zlib.crc32(TEXT[:6])),
    ),
    "shorter than it claims": ("size", lambda: forged("shop/a.bin", deflated(TEXT), size=len(TEXT) + 1, checksum=SUM)),
    "stored and shorter": ("size", lambda: forged("shop/a.bin", TEXT, size=len(TEXT) - 1, method=0, checksum=SUM)),
    "more after the end": (
        "size",
        lambda: forged("shop/a.bin", deflated(TEXT) + b"more", size=len(TEXT), checksum=SUM),
    ),
    "cut off": ("size", lambda: forged("shop/a.bin", deflated(TEXT)[:-2], size=len(TEXT), checksum=SUM)),
    "wrong checksum": ("malformed", lambda: forged("shop/a.bin", deflated(TEXT), size=len(TEXT), checksum=SUM ^ 1)),
    "garbage": ("malformed", lambda: forged("shop/a.bin", b"\xff" * 40, size=len(TEXT), checksum=SUM)),
    "two names": (
        "malformed",
        lambda: forged("shop/a.bin", TEXT, size=len(TEXT), method=0, checksum=SUM, local="shop/b.bin"),
    ),
    "two names, one the beginning of the other": (
        "malformed",
        lambda: forged(
            "shop/a.bin",
            TEXT,
            size=len(TEXT),
            method=0,
            checksum=SUM,
            local="shop/a.bin.py",
        ),
    ),
    "beyond the end": (
        "size",
        lambda: forged("shop/a.bin", TEXT, size=len(TEXT), method=0, checksum=SUM, declared=2**31),
    ),
    "directory with content": ("malformed", lambda: forged("shop/a/", TEXT, size=len(TEXT), method=0, checksum=SUM)),
    "too many files": ("count", lambda: archive({f"shop/{n}.py": b"" for n in range(MAX_FILES + 1)})),
    "built for CPython": (
        "tags",
        lambda: wheel({}, metadata=METADATA.replace("py3-none-any", "cp311-cp311-linux_x86_64")),
    ),
    "built for one platform": ("tags", lambda: wheel({}, metadata=METADATA.replace("any", "win_amd64"))),
    "built for an ABI": ("tags", lambda: wheel({}, metadata=METADATA.replace("none", "abi3"))),
    "built for Python 2": ("tags", lambda: wheel({}, metadata=METADATA.replace("py3", "py2"))),
    "built for one more": ("tags", lambda: wheel({}, metadata=f"{METADATA}Tag: cp311-abi3-win32\n")),
    "not pure": ("tags", lambda: wheel({}, metadata=METADATA.replace("true", "false"))),
    "no tag": ("tags", lambda: wheel({}, metadata="Wheel-Version: 1.0\nRoot-Is-Purelib: true\n")),
    "another version of wheels": ("tags", lambda: wheel({}, metadata=METADATA.replace("1.0", "2.0"))),
}


@pytest.mark.parametrize(("reason", "make"), CORPUS.values(), ids=CORPUS.keys())
def test_bad_wheel_is_refused_with_its_reason_and_a_remedy(reason: str, make: Callable[[], bytes]) -> None:
    content = make()

    with pytest.raises(ManifestError) as refused:
        read_artifact(NAME, content)

    error = refused.value
    assert (error.reason, NAME in error.message, error.hint != "", error.message.isprintable()) == (
        reason,
        True,
        True,
        True,
    )


@pytest.mark.parametrize(
    "name", ["bomb", "bomb that claims what is allowed", "bomb of many files", "overlapping entries", "too many files"]
)
def test_bomb_costs_little_time_and_memory(name: str) -> None:
    content = CORPUS[name][1]()
    tracemalloc.start()
    began = process_time()
    with pytest.raises(ManifestError):
        read_artifact(NAME, content)
    took = process_time() - began
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (peak < 2 * MAX_UNPACKED_BYTES, took < 5) == (True, True)


def test_lying_bomb_is_not_inflated() -> None:
    content = bomb(100)
    tracemalloc.start()
    with pytest.raises(ManifestError):
        read_artifact(NAME, content)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 2 * MEBIBYTE


def test_native_library_is_refused_with_the_way_to_install_it() -> None:
    with pytest.raises(ManifestError) as refused:
        read_artifact(NAME, wheel({"shop/fast.so": b"\x7fELF"}))

    assert "install this one with pip" in refused.value.hint


def test_good_wheel_is_read_whole() -> None:
    files = {"shop/__init__.py": b"x = 1\n", "shop/data/caf\xe9.bin": bytes(range(256)), "shop/empty.py": b""}

    assert read_artifact(NAME, wheel(files)) == {**files, "shop-1.0.dist-info/WHEEL": METADATA.encode()}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_stored_and_deflated_files_are_read(compression: int) -> None:
    content = archive({"shop/a.py": TEXT, "shop-1.0.dist-info/WHEEL": METADATA}, compression=compression)

    assert read_artifact(NAME, content)["shop/a.py"] == TEXT


def test_forged_wheel_that_tells_the_truth_is_read() -> None:
    content = forged("shop/a.bin", deflated(TEXT), size=len(TEXT), checksum=SUM)

    assert read_artifact(NAME, content)["shop/a.bin"] == TEXT


def test_directories_are_not_files() -> None:
    content = zipped([(entry("shop/", kind=stat.S_IFDIR), b""), (entry("shop/a.py"), b"")])

    assert list(read_artifact(NAME, content)) == ["shop-1.0.dist-info/WHEEL", "shop/a.py"]


def test_wheel_for_both_pythons_is_read() -> None:
    assert read_artifact(NAME, wheel({}, metadata=f"{METADATA}Tag: py2-none-any\n"))


def test_wheel_written_without_seeking_is_read() -> None:
    class Pipe(io.RawIOBase):
        """Takes bytes in order only, so that sizes follow the content."""

        def __init__(self) -> None:
            self.taken = b""

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            self.taken += bytes(data)  # type: ignore[call-overload]
            return len(data)  # type: ignore[arg-type]

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as target:  # type: ignore[arg-type]
        target.writestr("shop/a.py", TEXT)
        target.writestr("shop-1.0.dist-info/WHEEL", METADATA)

    assert read_artifact(NAME, pipe.taken)["shop/a.py"] == TEXT


def test_as_many_files_as_allowed_are_read() -> None:
    files = {f"shop/{n}.py": b"" for n in range(MAX_FILES - 1)}

    assert len(read_artifact(NAME, wheel(files))) == MAX_FILES


def test_module_is_read_as_it_is() -> None:
    assert read_artifact("shop.py", TEXT) == {"shop.py": TEXT}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "shop",
        "shop.tar.gz",
        "shop.zip",
        "shop.so",
        "shop-1.0.PY",
        "my-shop.py",
        "1shop.py",
        "a.b.py",
        ".py",
        "../shop.py",
        "a/shop.py",
        "shop.py\n",
        "shop\0.py",
        "-shop.whl",
        ".whl",
        "sh\xf6p.py",
        "s" * 300 + ".py",
    ],
)
def test_name_that_is_no_wheel_and_no_module_is_refused(name: str) -> None:
    with pytest.raises(ManifestError) as refused:
        read_artifact(name, TEXT)

    assert (refused.value.reason, refused.value.hint != "", refused.value.message.isprintable()) == ("name", True, True)


def test_module_larger_than_the_limit_is_refused() -> None:
    with pytest.raises(ManifestError, match="larger"):
        read_artifact("shop.py", bytes(MAX_UNPACKED_BYTES + 1))
