"""``oneiric-tuf-client``: what tuf-conformance expects of a client's command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata

from oneiric.remote.tuf_client import main
from tests.harness.servers import Server, serving
from tests.remote.tuf_machine import asked
from tests.remote.tuf_publisher import Repository


@pytest.fixture
def repository() -> Repository:
    repository = Repository()
    repository.release({"a/one.txt": b"one", "two.txt": b"two"})
    return repository


@pytest.fixture
def server(repository: Repository) -> Iterator[Server]:
    with serving(repository.answer) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, repository: Repository) -> Path:
    """Return a directory that the client was initialised in."""
    for name in ("metadata", "targets"):
        (tmp_path / name).mkdir()
    (tmp_path / "initial.json").write_bytes(repository.pinned)
    assert main(["--metadata-dir", str(tmp_path / "metadata"), "init", str(tmp_path / "initial.json")]) == 0
    return tmp_path


def refresh(home: Path, server: Server, command: str = "refresh", *more: str) -> int:
    url = server.url("/repo/metadata")
    return main(["--metadata-url", url, "--metadata-dir", str(home / "metadata"), *more, command])


def download(home: Path, server: Server, *names: str) -> int:
    targets = [word for name in names for word in ("--target-name", name)]
    places = ["--target-dir", str(home / "targets"), "--target-base-url", server.url("/repo/targets")]
    return refresh(home, server, "download", *targets, *places)


def versions(home: Path) -> dict[str, int]:
    """Return the versions of the trusted roles."""
    found = sorted((home / "metadata").glob("*.json"))
    return {path.stem: Metadata.from_file(str(path)).signed.version for path in found}


def downloaded(home: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in (home / "targets").iterdir())


def test_init_trusts_the_root_and_asks_nobody(home: Path) -> None:
    assert versions(home) == {"root": 1}


def test_init_without_a_root_fails(tmp_path: Path) -> None:
    assert main(["--metadata-dir", str(tmp_path), "init", str(tmp_path / "nowhere.json")]) == 1


def test_refresh_keeps_metadata_under_names_without_versions(
    home: Path, server: Server, repository: Repository
) -> None:
    repository.rotate("root")
    assert refresh(home, server) == 0
    assert versions(home) == {"root": 2, "snapshot": 2, "targets": 2, "timestamp": 2}


def test_refresh_that_is_refused_fails_and_says_why(
    home: Path, server: Server, repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.files["metadata/timestamp.json"] = b"{}"
    assert refresh(home, server) == 1
    assert capsys.readouterr().err.startswith("the TUF metadata: ")


def test_refresh_keeps_the_newest_root_although_the_rest_is_refused(
    home: Path, server: Server, repository: Repository
) -> None:
    repository.rotate("root")
    repository.files["metadata/timestamp.json"] = b"{}"
    assert (refresh(home, server), versions(home)) == (1, {"root": 2})


def test_download_keeps_each_target(home: Path, server: Server) -> None:
    assert (download(home, server, "a/one.txt", "two.txt"), downloaded(home)) == (0, [b"one", b"two"])


def test_download_again_asks_for_no_target(home: Path, server: Server) -> None:
    download(home, server, "a/one.txt")
    server.requests.clear()
    assert download(home, server, "a/one.txt") == 0
    assert not any(path.startswith("targets/") for path in asked(server))


def test_download_of_new_content_replaces_the_old(home: Path, server: Server, repository: Repository) -> None:
    download(home, server, "a/one.txt")
    repository.release({"a/one.txt": b"new"})
    assert (download(home, server, "a/one.txt"), downloaded(home)) == (0, [b"new"])


@pytest.mark.parametrize("name", ["nowhere.txt", "../two.txt"])
def test_download_of_what_is_no_target_fails(home: Path, server: Server, name: str) -> None:
    assert (download(home, server, name), downloaded(home)) == (1, [])


def test_download_of_a_tampered_target_fails_and_keeps_nothing(
    home: Path, server: Server, repository: Repository
) -> None:
    path = next(path for path in repository.files if path.endswith(".two.txt"))
    repository.files[path] = b"TWO"
    assert (download(home, server, "two.txt"), downloaded(home)) == (1, [])
