"""Wheels made in memory, and artifacts opened from them."""

from __future__ import annotations

import hashlib
import io
import textwrap
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from oneiric.remote.artifact import Artifact

NAME = "shop-1.0-py3-none-any.whl"
METADATA = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def wheel(files: Mapping[str, str | bytes], *, metadata: str = METADATA) -> bytes:
    """Return a wheel with *files*; text is dedented, so that tests can indent it."""
    return archive({**files, "shop-1.0.dist-info/WHEEL": metadata})


def archive(files: Mapping[str, str | bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip file with *files* and nothing else, not even the time: made again it has the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for path, content in files.items():
            text = textwrap.dedent(content) if isinstance(content, str) else content
            zipped.writestr(zipfile.ZipInfo(path), text, compress_type=compression)
    return buffer.getvalue()


def digest(content: bytes) -> str:
    """Return the SHA-256 of *content*, as a manifest writes it."""
    return hashlib.sha256(content).hexdigest()


def opened(content: bytes, name: str = NAME) -> Artifact:
    """Return the artifact with *content*, which passes for what the manifest names."""
    return Artifact.open(name, content, sha256=digest(content), length=len(content))


@contextmanager
def artifact(files: Mapping[str, str | bytes], name: str = NAME) -> Iterator[Artifact]:
    """Open an artifact with *files*, and release it in the end."""
    found = opened(wheel(files), name)
    try:
        yield found
    finally:
        found.release()
