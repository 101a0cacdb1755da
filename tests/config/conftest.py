"""Settings directories written by the tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from oneiric.config.loader import load
from oneiric.core.config import Settings
from oneiric.errors import ConfigError, Problem


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ``settings`` below the working directory, named as an operator would: relatively."""
    monkeypatch.chdir(tmp_path)
    path = Path("settings")
    path.mkdir()
    return path


@pytest.fixture
def read(directory: Path) -> Callable[..., Settings]:
    """Write files, given by their stem, and load them."""

    def read(
        environ: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None, **files: str
    ) -> Settings:
        for stem, text in files.items():
            (directory / f"{stem}.yml").write_text(text)
        return load(directory, environ=environ or {}, flags=flags or {})

    return read


@pytest.fixture
def problems(read: Callable[..., Settings]) -> Callable[..., tuple[Problem, ...]]:
    """Load what cannot be loaded and return everything that is wrong with it."""

    def problems(**given: Any) -> tuple[Problem, ...]:
        with pytest.raises(ConfigError) as caught:
            read(**given)
        return caught.value.problems

    return problems


@pytest.fixture
def shared_directory() -> Iterator[Path]:
    """A directory that every user may look into, which ``tmp_path`` is not."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def unprivileged() -> Callable[[], AbstractContextManager[None]]:
    """Be somebody whom file modes apply to."""

    @contextlib.contextmanager
    def unprivileged() -> Iterator[None]:
        if os.geteuid() != 0:
            yield
            return
        os.seteuid(65_534)
        try:
            yield
        finally:
            os.seteuid(0)

    return unprivileged
