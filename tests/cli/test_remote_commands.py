"""``remote-sync`` and ``remote-status`` without a daemon, and in trouble."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.publisher.press import public_key
from examples.publisher.serve import Fault, fail, replace, tamper
from tests.adapters.redis_server import free_port
from tests.cli.conftest import Answer, Typing
from tests.harness.delivery import QUICK
from tests.harness.places import MANIFEST, STRANGER, WHEEL, Place, conforms, files, shown

HERE = "no daemon runs: straight into the cache; the next daemon starts from it\n"
FROM_DISK = "no daemon runs: answered from settings and plugins on disk\n"


# remote-sync without a daemon


def test_sync_without_a_daemon_fills_the_cache_and_says_so(place: Place, typed: Typing) -> None:
    answer = typed("remote-sync")
    accepted = f"{place.publisher.url}: upstream version 1 accepted: 1 entry, 1 artifact fetched\n"
    assert answer == Answer(0, accepted, HERE)
    assert set(files(place.cache)) >= {"manifest.yaml", f"artifacts/{place.upstream.artifact}"}


def test_synced_manifest_is_cached_as_it_was_published(place: Place, typed: Typing) -> None:
    typed("remote-sync")
    assert (place.cache / "manifest.yaml").read_bytes() == place.upstream.manifest.read_bytes()


def test_sync_answers_programs_with_one_document(place: Place, typed: Typing) -> None:
    document = typed("remote-sync", "--json").document
    assert conforms(document, "RemoteSyncDocument")
    said = {name: document[name] for name in ("schema", "live", "outcome", "manifest_version", "fetched", "dry_run")}
    assert said == {
        "schema": "oneiric.remote-sync/1",
        "live": False,
        "outcome": "success",
        "manifest_version": 1,
        "fetched": 1,
        "dry_run": False,
    }


def test_sync_of_what_is_here_fetches_no_artifact_again(place: Place, typed: Typing) -> None:
    typed("remote-sync")
    assert typed("remote-sync", "--json").document["fetched"] == 0
    assert [asked.path for asked in place.publisher.requests].count(WHEEL) == 1


def test_synced_provider_is_listed_and_explained_without_a_daemon(place: Place, typed: Typing) -> None:
    typed("remote-sync")
    listed = typed("list", "--domain", "adapter", "--show-shadowed").out
    assert re.search(r"^ +remote +shadowed .* remote +not the selection", listed, re.MULTILINE)
    assert "remote" in typed("explain", "cache", "--domain", "adapter").out


def test_manifest_can_be_a_file_beside_its_artifacts(place: Place, typed: Typing) -> None:
    shutil.copytree(place.upstream.directory, "release")
    answer = typed("remote-sync", "--manifest", "release/manifest.json")
    manifest = place.directory / "release" / "manifest.json"
    assert (answer.code, answer.out) == (
        0,
        f"{manifest}: upstream version 1 accepted: 1 entry, 1 artifact fetched\n",
    )
    assert place.publisher.requests == []


def test_dry_run_says_what_would_be_accepted_and_changes_nothing(place: Place, typed: Typing) -> None:
    before = files(place.directory)
    answer = typed("remote-sync", "--dry-run")
    assert (answer.code, answer.out) == (
        0,
        f"{place.publisher.url}: upstream version 1 would be accepted: 1 entry, 1 artifact fetched\n",
    )
    assert {name: content for name, content in files(place.directory).items() if content} == before


@pytest.mark.parametrize(("path", "code"), [(MANIFEST, 5), (WHEEL, 5)])
def test_dry_run_verifies_all_and_its_failure_counts_for_nothing(
    place: Place, typed: Typing, path: str, code: int
) -> None:
    place.publisher.faults[path] = tamper if path == WHEEL else replace(place.upstream.publish(signer=STRANGER))
    assert typed("remote-sync", "--dry-run").code == code
    status = typed("remote-status", "--json").document
    assert (status["failures"], status["last_sync_at"], status["quarantined"]) == (0, "", 0)


# What goes wrong


def expire(place: Place) -> None:
    place.upstream.expire()


def sign_by_a_stranger(place: Place) -> None:
    place.upstream.publish(signer=STRANGER)


def strip_the_signature(place: Place) -> None:
    document = json.loads(place.upstream.manifest.read_bytes())
    del document["signatures"]
    place.upstream.manifest.write_text(json.dumps(document))


def break_the_syntax(place: Place) -> None:
    place.publisher.faults[MANIFEST] = replace(b'{"entries": [')


def misspell_a_domain(place: Place) -> None:
    document = json.loads(place.upstream.manifest.read_bytes())
    document["entries"][0]["domain"] = "adaptor"
    place.upstream.manifest.write_text(json.dumps(document))
    place.configure(require_signature=False)


def ask_for_two_signatures(place: Place) -> None:
    place.configure(public_keys=[public_key(STRANGER)], signature_threshold=2)


def name_what_is_installed(place: Place) -> None:
    entry = {"domain": "adapter", "key": "cache", "provider": "remote", "factory": "shutil:rmtree"}
    place.upstream.publish(entry)


def name_an_artifact_elsewhere(place: Place) -> None:
    entry = {**place.upstream.entry(), "uri": "https://elsewhere.example/x.whl", "sha256": "0" * 64}
    del entry["wheel"]
    place.upstream.publish(entry)


def change_the_artifact(place: Place) -> None:
    place.publisher.faults[WHEEL] = tamper


def serving_instead(path: str, fault: Fault) -> Callable[[Place], None]:
    def change(place: Place) -> None:
        place.publisher.faults[path] = fault

    return change


@pytest.mark.parametrize(
    ("change", "code", "says", "remedy"),
    [
        (sign_by_a_stranger, 5, "error[trust]: signature: {url}: 1 signature, and none", "oneiric manifest sign"),
        (strip_the_signature, 5, "error[trust]: unsigned: {url}: the manifest is not signed", "oneiric manifest sign"),
        (ask_for_two_signatures, 5, "error[trust]: threshold: {url}: signed by 1", "oneiric manifest sign --append"),
        (expire, 5, "error[trust]: expired: {url}: the manifest expired at ", "publish it signed anew"),
        (name_what_is_installed, 5, "error[trust]: factory: {url}: entries[0].factory", "remote.allowed_factories"),
        (name_an_artifact_elsewhere, 5, "error[trust]: uri: {url}: entries[0].uri", "remote.allowed_hosts"),
        (change_the_artifact, 5, "error[trust]: digest: {url}: artifact upstream-1.0-", "oneiric remote-sync"),
        (break_the_syntax, 1, "error[manifest]: malformed: {url}: line 1: not valid JSON", "read as JSON"),
        (misspell_a_domain, 1, "error[manifest]: entry: {url}: entries[0].domain: 'adaptor'", "one of: adapter"),
        (serving_instead(MANIFEST, fail(404)), 1, "error[fetch]: http: 404 Not Found from {url}", "curl -v"),
        (serving_instead(MANIFEST, fail(302, Location="/x")), 1, "error[fetch]: redirect: {url}", "really is"),
        (serving_instead(WHEEL, fail(403)), 1, "error[fetch]: http: 403 Forbidden from ", "the token"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("error") else "",
)
def test_failed_sync_names_the_check_the_place_and_the_remedy(
    place: Place, typed: Typing, change: Callable[[Place], None], code: int, says: str, remedy: str
) -> None:
    change(place)
    answer = typed("remote-sync")
    _, error, hint = answer.err.splitlines()
    assert (answer.code, answer.out) == (code, "")
    assert error.startswith(says.format(url=place.publisher.url))
    assert hint.startswith("try: ")
    assert remedy in hint


def test_failed_sync_answers_programs_with_an_error_document(place: Place, typed: Typing) -> None:
    sign_by_a_stranger(place)
    answer = typed("remote-sync", "--json")
    error = answer.document["error"]
    assert (answer.code, error["code"], error["exit_code"]) == (5, "trust", 5)
    assert conforms(answer.document, "ErrorDocument")


def test_older_manifest_is_refused_although_the_cache_was_removed(place: Place, typed: Typing) -> None:
    old = place.upstream.manifest.read_bytes()
    place.upstream.publish(place.upstream.entry("2.0"))
    typed("remote-sync")
    shutil.rmtree(place.cache)
    place.publisher.faults[MANIFEST] = replace(old)
    answer = typed("remote-sync")
    assert (answer.code, "rollback: " in answer.err, "2 is the lowest accepted" in answer.err) == (5, True, True)


def test_failed_sync_leaves_the_cache_as_it_was(place: Place, typed: Typing) -> None:
    typed("remote-sync")
    before = files(place.cache)
    place.upstream.publish(place.upstream.entry("2.0"), signer=STRANGER)
    typed("remote-sync")
    assert files(place.cache) == before


@pytest.mark.parametrize("arguments", [(), ("-v",), ("--debug",), ("--json",)], ids=" ".join)
def test_error_repeats_no_token_and_no_query(place: Place, typed: Typing, arguments: tuple[str, ...]) -> None:
    place.configure(f"{place.publisher.url}?key=QUERYSECRET#FRAGMENT", token="TOKENSECRET")
    place.publisher.faults[MANIFEST] = fail(404)
    answer = typed("remote-sync", *arguments)
    status = typed("remote-status", *arguments)
    assert place.publisher.requests[-1].headers["authorization"] == "Bearer TOKENSECRET"
    assert place.publisher.url in answer.err
    assert [text for text in (*answer[1:], *status[1:]) if re.search("SECRET|FRAGMENT", text)] == []


def test_sync_without_a_url_is_a_mistake_in_the_settings(place: Place, typed: Typing) -> None:
    (place.directory / "settings" / "app.yml").write_text(QUICK)
    answer = typed("remote-sync")
    assert answer.code == 4
    assert "error[config]: remote.manifest_url: is not set" in answer.err
    assert "try: oneiric remote-sync --manifest https://..." in answer.err


@pytest.mark.parametrize("key", ["release.pub", "c2VjcmV0"])
def test_public_key_that_is_none_is_named_by_its_setting(place: Place, typed: Typing, key: str) -> None:
    place.configure(public_key=key)
    answer = typed("remote-sync")
    assert (answer.code, "error[config]: remote.public_key: " in answer.err) == (4, True)
    assert ("'release.pub' is no file" in answer.err, "c2VjcmV0" in answer.err) == (key == "release.pub", False)


def test_sync_through_a_server_that_is_not_there_says_so(place: Place, typed: Typing) -> None:
    url = f"http://127.0.0.1:{free_port()}/manifest.json"
    answer = typed("remote-sync", "--manifest", url)
    assert (answer.code, f"error[fetch]: connection: {url}: connection refused" in answer.err) == (1, True)


# On a terminal


def on_a_terminal(directory: Path, *arguments: str) -> tuple[str, str]:
    """Type a command where its stderr is a terminal; return its stdout, and what the terminal got."""
    terminal, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "oneiric", *arguments],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
            timeout=60,
            check=True,
        )
        os.close(theirs)
        return done.stdout, _read_all(terminal)
    finally:
        os.close(terminal)


def _read_all(terminal: int) -> str:
    parts = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux says EIO where the other side is closed
            part = b""
        if not part:
            return b"".join(parts).decode()
        parts.append(part)


def test_sync_shows_its_progress_on_a_terminal(place: Place) -> None:
    second = {"key": "other", "module": "# another\n" + "class Cache:\n    version = '{version}'\n"}
    place.upstream.publish(place.upstream.entry(), place.upstream.entry("2.0", **second))
    _, seen = on_a_terminal(place.directory, "remote-sync")
    assert "1 of 2 artifacts\r2 of 2 artifacts\r" in seen


def test_sync_shows_no_progress_to_programs(place: Place, typed: Typing) -> None:
    assert "artifacts\r" not in typed("remote-sync").err


# remote-status without a daemon


def test_status_before_the_first_sync_says_never(place: Place, typed: Typing) -> None:
    answer = typed("remote-status")
    seen = shown(answer.out)
    assert (answer.code, answer.err) == (0, FROM_DISK)
    assert (seen["manifest"], seen["last sync"], seen["last success"], seen["circuit breaker"]) == (
        place.publisher.url,
        "never",
        "never",
        "closed",
    )


def test_status_after_a_success_says_what_the_runbook_expects(place: Place, typed: Typing) -> None:
    typed("remote-sync")
    seen = shown(typed("remote-status").out)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", seen["last sync"])
    assert (seen["syncs"], seen["registrations"], seen["version"], seen["keys"]) == (
        "1 success, 0 failed",
        "adapter 1",
        "1",
        place.upstream.signer.key.id,
    )


def test_status_answers_programs_with_one_document(place: Place, typed: Typing) -> None:
    typed("remote-sync")
    document = typed("remote-status", "--json").document
    assert conforms(document, "RemoteDocument")
    assert (document["schema"], document["live"], document["registrations"], document["cache_bytes"] > 900) == (
        "oneiric.remote-status/1",
        False,
        {"adapter": 1},
        True,
    )


def test_status_after_failures_counts_them_and_names_the_last(place: Place, typed: Typing) -> None:
    place.publisher.faults[MANIFEST] = fail(404)
    for _ in range(3):
        typed("remote-sync")
    seen = shown(typed("remote-status").out)
    assert (seen["syncs"], seen["failures in a row"], seen["circuit breaker"]) == (
        "0 success, 3 failed",
        "3",
        "half-open",  # as for every process that starts now: its first round goes through
    )
    assert seen["last error"].startswith("http: 404 Not Found from ")


def test_status_warns_where_signatures_are_not_required(place: Place, typed: Typing) -> None:
    place.configure(require_signature=False)
    assert typed("remote-status").out.endswith(
        "warning: signatures are not required (remote.require_signature: false)\n"
    )
