"""``cache list``, ``verify`` and ``prune``: what lies in the cache, whether it is right, and what may go."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.conftest import Typing
from tests.harness.daemon import project
from tests.harness.delivery import Upstream

NOT_NAMED = "000000000000-left_behind.whl"


class Cached(NamedTuple):
    """A project, in the working directory, whose cache has what the manifest names."""

    upstream: Upstream
    artifact: Path

    @property
    def name(self) -> str:
        return self.artifact.name

    @property
    def artifacts(self) -> Path:
        return self.artifact.parent


@pytest.fixture
def cached(tmp_path: Path, typed: Typing, monkeypatch: pytest.MonkeyPatch) -> Cached:
    upstream = Upstream(tmp_path / "up")
    upstream.publish()
    place = project(tmp_path / "p", app=upstream.settings(str(upstream.manifest)))
    monkeypatch.chdir(place)
    assert typed("remote-sync").code == 0
    return Cached(upstream, place / ".oneiric_cache" / "artifacts" / upstream.artifact)


def leave(_cached: Cached) -> None:
    """Change nothing."""


def corrupt(cached: Cached) -> None:
    content = cached.artifact.read_bytes()
    cached.artifact.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def cut_short(cached: Cached) -> None:
    cached.artifact.write_bytes(cached.artifact.read_bytes()[:10])


def link_elsewhere(cached: Cached) -> None:
    away = cached.artifact.rename(cached.artifacts.parent.parent / "away.whl")
    cached.artifact.symlink_to(away)


def remove(cached: Cached) -> None:
    cached.artifact.unlink()


verdicts = pytest.mark.parametrize(
    ("change", "verdict", "code"),
    [
        (leave, "right", 0),
        (corrupt, "wrong", 5),
        (cut_short, "wrong", 5),
        (link_elsewhere, "wrong", 5),
        (remove, "missing", 0),
    ],
)


@verdicts
def test_verify_says_whether_each_artifact_is_what_the_manifest_names(
    cached: Cached, typed: Typing, change: Callable[[Cached], None], verdict: str, code: int
) -> None:
    change(cached)
    answer = typed("cache", "verify", "--json")
    (row,) = answer.document["artifacts"]
    assert (answer.code, row["name"], row["verdict"]) == (code, cached.name, verdict)


@verdicts
def test_list_shows_the_verdicts_and_judges_nothing(
    cached: Cached, typed: Typing, change: Callable[[Cached], None], verdict: str, code: int
) -> None:
    change(cached)
    answer = typed("cache", "list")
    heading, row = answer.out.splitlines()
    assert (answer.code, heading.split()) == (0, ["ARTIFACT", "BYTES", "DIGEST", "SHA256"])
    assert (row.split()[0], row.split()[2]) == (cached.name, verdict)


def test_list_gives_the_digest_and_the_size_of_what_is_there(cached: Cached, typed: Typing) -> None:
    content = cached.artifact.read_bytes()
    document = typed("cache", "list", "--json").document
    assert document == {
        "schema": "oneiric.cache-list/1",
        "directory": ".oneiric_cache",
        "artifacts": [
            {
                "name": cached.name,
                "size_bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
                "verdict": "right",
            }
        ],
        "quarantined": [],
    }


def test_what_no_manifest_names_is_listed_as_such_and_no_trust_failure(cached: Cached, typed: Typing) -> None:
    (cached.artifacts / NOT_NAMED).write_bytes(b"old")
    answer = typed("cache", "verify")
    assert answer.code == 0
    assert [line.split()[:4] for line in answer.out.splitlines() if NOT_NAMED in line] == [
        [NOT_NAMED, "3", "not", "named"]
    ]


def test_quarantined_artifact_is_listed_by_its_name(cached: Cached, typed: Typing) -> None:
    corrupt(cached)
    typed("remote-sync")
    answer = typed("cache", "verify")
    (evidence,) = [line for line in answer.out.splitlines() if line.startswith("quarantined: ")]
    assert (answer.code, evidence.endswith(f"-{cached.name}")) == (0, True)


def test_prune_removes_what_no_manifest_names_and_nothing_else(cached: Cached, typed: Typing) -> None:
    (cached.artifacts / NOT_NAMED).write_bytes(b"old")
    answer = typed("cache", "prune")
    assert (answer.code, answer.out) == (0, f"removed {NOT_NAMED}\n1 artifacts removed, 3 bytes freed\n")
    assert [path.name for path in cached.artifacts.iterdir()] == [cached.name]


def test_prune_removes_what_a_newer_manifest_no_longer_names(cached: Cached, typed: Typing) -> None:
    cached.upstream.publish(cached.upstream.entry("2.0"))
    typed("remote-sync")
    document = typed("cache", "prune", "--json").document
    assert (document["schema"], [row["name"] for row in document["removed"]]) == (
        "oneiric.cache-prune/1",
        [cached.name],
    )
    assert [path.name for path in cached.artifacts.iterdir()] == [cached.upstream.artifact]


def test_prune_keeps_evidence(cached: Cached, typed: Typing) -> None:
    corrupt(cached)
    typed("remote-sync")
    typed("cache", "prune")
    assert len(typed("cache", "list", "--json").document["quarantined"]) == 1


def test_prune_where_there_is_nothing_to_remove_says_so(cached: Cached, typed: Typing) -> None:
    assert typed("cache", "prune").out == "0 artifacts removed, 0 bytes freed\n"


@pytest.mark.parametrize("verb", ["list", "verify"])
def test_cache_that_is_not_there_is_looked_at_without_making_it(
    tmp_path: Path, typed: Typing, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.chdir(project(tmp_path / "p"))
    answer = typed("cache", verb)
    assert (answer.code, answer.out, Path(".oneiric_cache").exists()) == (0, ".oneiric_cache: no artifact\n", False)


def test_cache_dir_option_names_another_cache(cached: Cached, typed: Typing, tmp_path: Path) -> None:
    cached.artifacts.parent.rename(tmp_path / "elsewhere")
    assert cached.name in typed("cache", "list", "--cache-dir", str(tmp_path / "elsewhere")).out


@pytest.mark.parametrize("verb", ["list", "verify", "prune"])
def test_cached_manifest_that_cannot_be_read_is_an_error_with_its_place(
    cached: Cached, typed: Typing, verb: str
) -> None:
    (cached.artifacts.parent / "manifest.yaml").write_bytes(b"{")
    answer = typed("cache", verb)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("error[manifest]: .oneiric_cache/manifest.yaml: ")
    assert answer.err.endswith("try: oneiric remote-sync\n")
    assert cached.artifact.exists()


def test_cache_that_others_may_write_to_is_refused_with_the_remedy(cached: Cached, typed: Typing) -> None:
    cached.artifacts.parent.chmod(0o777)
    answer = typed("cache", "verify")
    assert (answer.code, answer.out) == (1, "")
    assert "others may write to it" in answer.err
    assert "try: ls -ld .oneiric_cache" in answer.err
