"""``remote-sync``, ``remote-status`` and what ``orchestrate`` takes: with a daemon, without, and in trouble."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jsonschema import Draft202012Validator

from examples.publisher.press import new_key, public_key
from examples.publisher.serve import Fault, Publisher, fail, replace, tamper
from tests.adapters.redis_server import free_port
from tests.cli.conftest import Answer, Typing
from tests.harness.daemon import Daemon, project, running
from tests.harness.delivery import QUICK, Upstream, serving, trusting

HERE = "no daemon runs: straight into the cache; the next daemon starts from it\n"
FROM_DISK = "no daemon runs: answered from settings and plugins on disk\n"
OPENAPI = json.loads((Path(__file__).parents[2] / "docs" / "reference" / "openapi.json").read_text())
MANIFEST, WHEEL = "/manifest.json", "/upstream-1.0-py3-none-any.whl"
STRANGER = new_key()


class Place(NamedTuple):
    """A project, and who delivers to it."""

    directory: Path
    upstream: Upstream
    publisher: Publisher

    def configure(self, url: str | None = None, **remote: Any) -> None:
        text = self.upstream.settings(url or self.publisher.url, **remote)
        (self.directory / "settings" / "app.yml").write_text(text)

    @property
    def cache(self) -> Path:
        return self.directory / ".oneiric_cache"


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


def conforms(document: dict[str, Any], name: str) -> bool:
    """Say whether a document is as the published description of the API has it."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": OPENAPI["components"]}
    return Draft202012Validator(schema).is_valid(document)


def files(directory: Path) -> dict[str, bytes]:
    found = (path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def shown(text: str) -> dict[str, str]:
    """Return what ``remote-status`` shows, by its headings."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


# remote-sync without a daemon


def test_sync_without_a_daemon_fills_the_cache_and_says_so(place: Place, typed: Typing) -> None:
    answer = typed("remote-sync")
    accepted = f"{place.publisher.url}: upstream version 1 accepted: 1 entries, 1 artifacts fetched\n"
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
    answer = typed("remote-sync", "--manifest", "./release/manifest.json")
    assert (answer.code, answer.out) == (
        0,
        "./release/manifest.json: upstream version 1 accepted: 1 entries, 1 artifacts fetched\n",
    )
    assert place.publisher.requests == []


def test_dry_run_says_what_would_be_accepted_and_changes_nothing(place: Place, typed: Typing) -> None:
    before = files(place.directory)
    answer = typed("remote-sync", "--dry-run")
    assert (answer.code, answer.out) == (
        0,
        f"{place.publisher.url}: upstream version 1 would be accepted: 1 entries, 1 artifacts fetched\n",
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
        (sign_by_a_stranger, 5, "error[trust]: signature: {url}: none of the 1 signatures", "oneiric manifest sign"),
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


# With a daemon


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Daemon]]:
    """A daemon over TLS that synchronises when it is told to; a test that publishes does so with a higher version."""
    root = tmp_path_factory.mktemp("delivered")
    upstream = Upstream(root / "up")
    upstream.publish()
    with serving(upstream, tls=True) as publisher:
        place = Place(project(root / "p"), upstream, publisher)
        place.configure(failure_threshold=2, reset_timeout=600)
        with running(place.directory, "--no-watch", environ=trusting(upstream)) as daemon:
            daemon.wait_event("remote-sync-complete")
            yield place, daemon


@pytest.fixture
def live(delivered: tuple[Place, Daemon]) -> Iterator[tuple[Place, Daemon]]:
    """The same, in order before and after."""
    yield delivered
    place, daemon = delivered
    place.publisher.faults.clear()
    daemon.client.post("/v1/remote/sync", {"force": True})


def test_sync_reaches_the_daemon(live: tuple[Place, Daemon]) -> None:
    place, daemon = live
    place.upstream.publish(place.upstream.entry("3.0"))
    answer = daemon.cli("remote-sync")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith(f"{place.publisher.url}: upstream version ")
    explained = daemon.client.get("/v1/explain", domain="adapter", key="cache")["placings"]
    assert [p["version"] for p in explained if p["provider"] == "remote"] == ["3.0"]


def test_sync_of_what_is_in_force_is_unchanged(live: tuple[Place, Daemon]) -> None:
    _, daemon = live
    document = json.loads(daemon.cli("remote-sync", "--json").stdout)
    assert conforms(document, "RemoteSyncDocument")
    assert (document["live"], document["outcome"], document["fetched"]) == (True, "unchanged", 0)


def test_dry_run_leaves_the_daemon_as_it_was(live: tuple[Place, Daemon]) -> None:
    place, daemon = live
    before = daemon.client.get("/v1/remote")
    place.upstream.publish(place.upstream.entry("4.0"))
    answer = daemon.cli("remote-sync", "--dry-run")
    assert (answer.returncode, " would be accepted: " in answer.stdout) == (0, True)
    assert daemon.client.get("/v1/remote") == before


def test_failed_sync_through_the_daemon_says_the_same_as_without(live: tuple[Place, Daemon]) -> None:
    place, daemon = live
    place.publisher.faults[MANIFEST] = replace(place.upstream.publish(signer=STRANGER))
    answer = daemon.cli("remote-sync")
    place.upstream.publish()
    assert (answer.returncode, answer.stdout) == (5, "")
    error, hint = answer.stderr.splitlines()
    assert error.startswith(f"error[trust]: signature: {place.publisher.url}: none of the 1 signatures")
    assert hint == "try: sign it with one of the trusted keys: oneiric manifest sign"


def test_open_breaker_refuses_and_force_goes_ahead(live: tuple[Place, Daemon]) -> None:
    place, daemon = live
    place.publisher.faults[MANIFEST] = fail(404)
    failed = [daemon.cli("remote-sync").returncode for _ in range(2)]
    asked = len(place.publisher.requests)
    refused = daemon.cli("remote-sync")
    status = daemon.client.get("/v1/remote")
    assert (failed, refused.returncode) == ([1, 1], 1)
    assert re.search(r"skipped: the circuit breaker is open for (599|600) s more\n", refused.stdout)
    assert refused.stderr == "try: oneiric remote-sync --force\n"
    assert (status["circuit_breaker"], status["consecutive_failures"], len(place.publisher.requests)) == (
        "open",
        2,
        asked,
    )
    place.publisher.faults.clear()
    assert daemon.cli("remote-sync", "--force").returncode == 0
    assert daemon.client.get("/v1/remote")["circuit_breaker"] == "closed"


def test_status_of_a_daemon_is_live(live: tuple[Place, Daemon]) -> None:
    place, daemon = live
    answer = daemon.cli("remote-status")
    seen = shown(answer.stdout)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert (seen["source"], seen["circuit breaker"], seen["keys"]) == (
        "upstream",
        "closed",
        place.upstream.signer.key.id,
    )
    document = json.loads(daemon.cli("remote-status", "--json").stdout)
    assert (conforms(document, "RemoteDocument"), document["live"]) == (True, True)


# orchestrate


def test_orchestrate_takes_the_manifest_and_the_interval_from_its_flags(place: Place) -> None:
    (place.directory / "settings" / "app.yml").write_text(place.upstream.settings())
    flags = ("--manifest", place.publisher.url, "--refresh-interval", "0.05")
    with running(place.directory, *flags) as daemon:
        daemon.wait_event("remote-sync-complete")
        version = place.upstream.entry("2.0")
        place.upstream.publish(version)
        event = daemon.wait_event("remote-sync-complete", count=2)
    assert event["manifest_version"] == 2


def test_orchestrate_without_remote_neither_asks_nor_offers(place: Place, typed: Typing) -> None:
    typed("remote-sync")
    asked = len(place.publisher.requests)
    with running(place.directory, "--no-remote") as daemon:
        placings = daemon.client.get("/v1/explain", domain="adapter", key="cache")["placings"]
    assert [placing["provider"] for placing in placings if placing["source"] == "remote"] == []
    assert len(placings) > 1
    assert len(place.publisher.requests) == asked


# Settings that change while a daemon runs


def test_manifest_url_that_is_set_while_it_runs_begins_to_sync(place: Place) -> None:
    (place.directory / "settings" / "app.yml").write_text(place.upstream.settings())
    with running(place.directory) as daemon:
        place.configure()
        event = daemon.wait_event("remote-sync-complete")
    assert (event["url"], event["entries"]) == (place.publisher.url, 1)


def test_weaker_trust_is_held_until_a_restart(place: Place) -> None:
    weaker = {
        "require_signature": False,
        "allowed_factories": ["shutil"],
        "allowed_hosts": ["elsewhere.example"],
        "allow_plain_http": True,
        "public_key": "",
        "min_version": 1,
        "max_age": 7200,
        "max_stale": 60,
    }
    place.configure(min_version=2, max_age=3600, max_stale=30)
    place.upstream.publish(version=2)
    with running(place.directory) as daemon:
        before = settings_of(daemon)
        place.configure(**weaker)
        held = {name: daemon.wait_event("config-held", setting=f"remote.{name}")["error"] for name in weaker}
        assert settings_of(daemon) == before
    assert set(held.values()) == {"weakens trust: takes effect at a restart"}


@pytest.mark.parametrize(
    ("name", "value"), [("TUF_ROOT", "root.json"), ("MIN_VERSION", "1"), ("MAX_AGE", "7200"), ("MAX_STALE", "31536000")]
)
def test_environment_cannot_weaken_what_the_settings_say(
    place: Place, typed: Typing, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    place.configure(min_version=2, max_age=3600)
    monkeypatch.setenv(f"ONEIRIC_REMOTE__{name}", value)
    answer = typed("remote-sync")
    assert (answer.code, place.publisher.requests) == (4, [])
    assert f"remote.{name.lower()}: the environment may make remote stricter, never more lenient" in answer.err


def settings_of(daemon: Daemon) -> dict[str, Any]:
    return {row["path"]: row["value"] for row in daemon.client.get("/v1/config")["settings"]}


def test_stricter_trust_takes_effect_at_once(place: Place) -> None:
    with running(place.directory) as daemon:
        daemon.wait_event("remote-sync-complete")
        place.configure(public_keys=[public_key(STRANGER)], signature_threshold=2)
        event = daemon.wait_event("remote-sync-error")
    assert event["reason"] == "threshold"


def test_key_that_is_rotated_while_it_runs_is_trusted_at_once(place: Place) -> None:
    with running(place.directory) as daemon:
        daemon.wait_event("remote-sync-complete")
        place.upstream.signer = STRANGER
        place.upstream.publish(place.upstream.entry("2.0"))
        place.configure()
        daemon.wait_event("remote-sync-complete", count=2)
        assert daemon.client.get("/v1/remote")["key_ids"] == [STRANGER.key.id]
