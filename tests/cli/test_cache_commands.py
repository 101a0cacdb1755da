"""``cache list``, ``verify`` and ``prune``: what lies in the cache, whether it is right, and what may go."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from examples.publisher.press import new_key, public_key
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


# The manifest itself


def configure(cached: Cached, **remote: object) -> None:
    Path("settings/app.yml").write_text(cached.upstream.settings(str(cached.upstream.manifest), **remote))


def manifest_of(cached: Cached) -> Path:
    return cached.artifacts.parent / "manifest.yaml"


def tamper(cached: Cached) -> None:
    manifest_of(cached).write_bytes(manifest_of(cached).read_bytes().replace(b'"priority":50', b'"priority":51'))


def spoil(cached: Cached) -> None:
    manifest_of(cached).write_bytes(b"{")


def sign_by_a_stranger(cached: Cached) -> None:
    manifest_of(cached).write_bytes(cached.upstream.publish(signer=new_key()))


def go_back(cached: Cached) -> None:
    old = manifest_of(cached).read_bytes()
    cached.upstream.publish(cached.upstream.entry("2.0"))
    configure(cached, min_version=2)
    manifest_of(cached).write_bytes(old)


def rotate_the_key(cached: Cached) -> None:
    configure(cached, public_key=public_key(new_key()))


def damage_the_ledger(_cached: Cached) -> None:
    Path(".oneiric_state/remote.json").write_bytes(b"")


def test_verify_says_that_the_manifest_is_one_that_the_next_start_accepts(cached: Cached, typed: Typing) -> None:
    answer = typed("cache", "verify", "--json")
    assert (answer.code, answer.document["manifest"]) == (
        0,
        {"verdict": "right", "reason": "", "error": "", "key_ids": [cached.upstream.signer.key.id], "warnings": []},
    )
    assert (
        typed("cache", "verify").out.splitlines()[-1] == f"manifest: right, signed by {cached.upstream.signer.key.id}"
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (tamper, "signature"),
        (sign_by_a_stranger, "signature"),
        (rotate_the_key, "signature"),
        (go_back, "rollback"),
        (damage_the_ledger, "state"),
        (spoil, "malformed"),
    ],
)
def test_verify_exits_5_on_a_manifest_that_the_next_start_refuses(
    cached: Cached, typed: Typing, change: Callable[[Cached], None], reason: str
) -> None:
    change(cached)
    answer = typed("cache", "verify", "--json")
    found = answer.document["manifest"]
    assert (answer.code, found["verdict"], found["reason"]) == (5, "wrong", reason)
    assert typed("cache", "verify").out.splitlines()[-1] == f"manifest: wrong: {reason}: {found['error']}"


def test_verify_without_keys_says_that_the_manifest_could_not_be_checked(cached: Cached, typed: Typing) -> None:
    configure(cached, public_key=None)
    answer = typed("cache", "verify")
    assert (answer.code, answer.out.splitlines()[-1]) == (
        0,
        "manifest: not checked: no public key is configured (remote.public_key)",
    )
    assert typed("cache", "verify", "--json").document["manifest"]["verdict"] == "not checked"


def test_verify_says_that_no_manifest_is_there(cached: Cached, typed: Typing) -> None:
    manifest_of(cached).unlink()
    answer = typed("cache", "verify")
    assert (answer.code, answer.out.splitlines()[-1]) == (0, "manifest: missing")


def test_verify_shows_what_a_start_would_warn_of(cached: Cached, typed: Typing) -> None:
    configure(cached, require_signature=False)
    document = json.loads(cached.upstream.publish(cached.upstream.entry("2.0")))
    del document["signatures"]
    manifest_of(cached).write_text(json.dumps(document))
    (warning,) = typed("cache", "verify", "--json").document["manifest"]["warnings"]
    assert "accepted without a valid signature" in warning
    assert f"manifest: warning: {warning}" in typed("cache", "verify").out.splitlines()


def test_verify_of_a_manifest_that_cannot_be_read_still_lists_the_artifacts(cached: Cached, typed: Typing) -> None:
    spoil(cached)
    (row,) = typed("cache", "verify", "--json").document["artifacts"]
    assert (row["name"], row["verdict"]) == (cached.name, "not named")


# What is not named, and evidence


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
    assert (answer.code, answer.out) == (0, f"removed {NOT_NAMED}\n1 artifact removed, 3 bytes freed\n")
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


@pytest.mark.parametrize("verb", ["list", "prune"])
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
