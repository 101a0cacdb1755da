"""What ``importlib.resources`` reads of an artifact: its files, from memory."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from importlib.resources.abc import Traversable, TraversableResources
from typing import IO, Any


class Resource(Traversable):
    """One file or directory of an artifact; it may also not be there."""

    def __init__(self, files: Mapping[str, bytes], path: str) -> None:
        self._files = files
        self._path = path

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self._path.rpartition("/")[2]

    def iterdir(self) -> Iterator[Resource]:
        """Yield what is directly in this directory."""
        below = f"{self._path}/" if self._path else ""
        names = {path[len(below) :].partition("/")[0] for path in self._files if path.startswith(below)}
        return (Resource(self._files, below + name) for name in sorted(names))

    def is_dir(self) -> bool:
        """Say whether anything is in it."""
        return not self._path or any(path.startswith(f"{self._path}/") for path in self._files)

    def is_file(self) -> bool:
        """Say whether it is a file."""
        return self._path in self._files

    def joinpath(self, *descendants: Any) -> Resource:
        """Return what *descendants*, with ``/`` between them, name below this directory."""
        parts = [self._path, *(part for each in descendants for part in str(each).split("/"))]
        return Resource(self._files, "/".join(part for part in parts if part not in ("", ".")))

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> IO[Any]:
        """Open the file to read text (``r``) or bytes (``rb``); text takes what ``io.TextIOWrapper`` does."""
        if mode not in ("r", "rt", "rb"):
            raise ValueError(f"an artifact's files can be read, not opened with mode {mode!r}")
        if self._path not in self._files:
            raise FileNotFoundError(f"the artifact has no file {self._path!r}")
        content = io.BytesIO(self._files[self._path])
        return content if mode == "rb" else io.TextIOWrapper(content, *args, **kwargs)

    def read_bytes(self) -> bytes:
        """Return the content of the file."""
        with self.open("rb") as file:
            content: bytes = file.read()
        return content

    def read_text(self, encoding: str | None = None) -> str:
        """Return the text of the file."""
        with self.open("r", encoding=encoding) as file:
            text: str = file.read()
        return text

    def __str__(self) -> str:
        return self._path


class Resources(TraversableResources):
    """The data files of one package of an artifact."""

    def __init__(self, files: Mapping[str, bytes], path: str) -> None:
        self._root = Resource(files, path)

    def files(self) -> Resource:
        """Return the package's directory."""
        return self._root
