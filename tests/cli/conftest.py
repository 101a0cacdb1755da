"""A project without a daemon, one with, and a way to type commands within this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from oneiric.cli.main import main
from tests.harness.daemon import Daemon, project, running
from tests.harness.delivery import Upstream, serving
from tests.harness.places import Place


class Answer(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Its one JSON object."""
        found: dict[str, Any] = json.loads(self.out)
        return found


Typing = Callable[..., Answer]


@pytest.fixture(scope="session")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which no daemon runs. Leave it as it is."""
    return project(tmp_path_factory.mktemp("quiet") / "p")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that several modules ask. Leave it as it is."""
    with running(project(tmp_path_factory.mktemp("shared") / "p")) as daemon:
        yield daemon


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A project that was never synchronised, in the working directory, with version 1 published for it."""
    upstream = Upstream(tmp_path / "up")
    upstream.publish()
    with serving(upstream) as publisher:
        made = Place(project(tmp_path / "p"), upstream, publisher)
        made.configure()
        monkeypatch.chdir(made.directory)
        yield made


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Typing:
    """Type a command, in this process and its working directory."""

    def answer(*arguments: str) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert isinstance(ended.value.code, int)
        return Answer(ended.value.code, *capsys.readouterr())

    return answer
