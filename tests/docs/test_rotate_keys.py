"""``docs/how-to/rotate-keys.md``: typed from top to bottom, against a daemon and an HTTPS server that are real."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest

from examples.publisher.press import public_key, publish
from examples.publisher.serve import Publisher
from oneiric.api.client import RemoteError
from oneiric.remote.signing import generate_keys, read_signer, write_keys
from tests.harness.daemon import Daemon, oneiric, running, wait_until
from tests.harness.delivery import Upstream, serving, trusting
from tests.harness.markdown import read
from tests.harness.walk import Walk

PAGE = read(Path(__file__).parents[2] / "docs" / "how-to" / "rotate-keys.md")
URL = "https://manifests.example.com/oneiric/manifest.json"
PLANNED = (
    "Make the new key",
    "Sign with both",
    "Give every daemon the new key",
    "Check that every daemon has it",
    "Take the old key away",
    "Sign with the new key alone",
)
ALL_THE_TIME = {"ONEIRIC_REMOTE__REFRESH_INTERVAL": "0.05"}
SOON = {"ONEIRIC_WATCH__DEBOUNCE": "0.1", "ONEIRIC_LOGGING__LEVEL": "debug"}
SYNCHRONISED = ("remote-sync-complete", "remote-sync-unchanged")
HIGHEST = 2**53 - 1


class Site:
    """A publisher with the key of 2026, a server of what it publishes, and a daemon's directory that trusts it."""

    def __init__(self, directory: Path, www: Upstream, server: Publisher) -> None:
        self.publisher = directory / "publisher"
        self.directory = directory / "daemon"
        self.www = www
        self.daemon: Daemon | None = None
        self._read = 0
        names = {URL.removesuffix("/manifest.json"): server.url.removesuffix("/manifest.json")}
        rooms = {"publisher": self.publisher, "daemon": self.directory}
        self.environ = {**trusting(www), **SOON}
        self.walk = Walk(PAGE, rooms, names=names, settled=self._settled)

    @contextmanager
    def running(self, **environ: str) -> Iterator[Daemon]:
        with running(self.directory, environ={**self.environ, **environ}) as daemon:
            self.daemon, self._read = daemon, 0
            wait_until(lambda: set(SYNCHRONISED) & set(names_of(daemon.events)), "it has synchronised")
            yield daemon

    def _settled(self, _path: Path) -> None:
        """Wait until the daemon has read its settings."""
        wait_until(lambda: self._readings() > self._read, "the settings are read")
        self._read = self._readings()

    def _readings(self) -> int:
        assert self.daemon is not None
        return sum(name in ("config-changed", "config-rejected") for name in names_of(self.daemon.events))


def names_of(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


def steal(site: Site, key: str) -> None:
    """Publish an entry that beats all others, signed with a key of the publisher's, in the highest version there is."""
    entry = site.www.entry("6.6.6", provider="intruder", priority=1000)
    signer = read_signer(site.publisher / key)
    publish(site.www.directory, entry, signer=signer, source="acme", version=HIGHEST)


class Planned(NamedTuple):
    """What was left when the planned rotation had been walked through."""

    events: list[dict[str, Any]]
    status: dict[str, Any]
    metrics: str


class Stolen(NamedTuple):
    """What was left of the theft, when it was over, and what came after it; ``copy`` was made while it lasted."""

    events: list[dict[str, Any]]
    refused: str
    status: dict[str, Any]
    provider: str
    metrics: str
    copy: Path
    later: list[dict[str, Any]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("rotate")
    publisher = directory / "publisher"
    www = Upstream(publisher / "www")
    write_keys(generate_keys(), publisher / "2026.pem", publisher / "2026.pub", force=False)
    www.signer = read_signer(publisher / "2026.pem")
    first = json.loads(www.publish())
    shutil.copy(www.manifest, publisher)
    (publisher / "manifest.yaml").write_text(json.dumps({"source": "acme", "entries": first["entries"]}))
    app = f"remote:\n  manifest_url: {URL}\n  public_keys: [keys/2026.pub]\n"
    with serving(www, tls=True) as server:
        app = app.replace(URL, server.url)
        for name in ("settings", "keys"):
            (directory / "daemon" / name).mkdir(parents=True)
        (directory / "daemon" / "settings" / "app.yml").write_text(app)
        shutil.copy(publisher / "2026.pub", directory / "daemon" / "keys")
        yield Site(directory, www, server)


def metrics_of(daemon: Daemon) -> str:
    with urlopen(f"http://{daemon.http}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def checks(metrics: str, outcome: str) -> float:
    """Return how many signatures were checked with that outcome."""
    lines = [line for line in metrics.splitlines() if line.startswith("oneiric_remote_signature_checks_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if f'outcome="{outcome}"' in line)


def provider_of(daemon: Daemon) -> str:
    """Return who would fill ``adapter/cache``."""
    placings = daemon.client.get("/v1/explain", domain="adapter", key="cache")["placings"]
    return str(next(placing["provider"] for placing in placings if placing["verdict"] == "active"))


@pytest.fixture(scope="module")
def planned(site: Site) -> Planned:
    """The planned rotation, walked through while the daemon synchronises as often as it can."""
    with site.running(**ALL_THE_TIME) as daemon:
        for heading in PLANNED:
            site.walk.take(heading)
        return Planned(daemon.events, daemon.client.get("/v1/remote"), metrics_of(daemon))


@pytest.fixture(scope="module")
def stolen(site: Site, planned: Planned) -> Stolen:
    """What comes after: the key of 2027 is stolen, that of 2028 is lost, and then two must sign."""
    copy = site.directory.parent / "copy"
    with site.running() as daemon:
        steal(site, "2027.pem")
        for block in site.walk.section("A key was stolen"):
            site.walk.do(block)
            if "error[trust]" in block.text:
                shutil.copytree(site.directory, copy, ignore=shutil.ignore_patterns("*.sock"))
        right = site.www.manifest.read_bytes()
        steal(site, "2027.pem")
        with pytest.raises(RemoteError) as refused:
            daemon.client.post("/v1/remote/sync")
        status, provider, metrics, events = (
            daemon.client.get("/v1/remote"),
            provider_of(daemon),
            metrics_of(daemon),
            daemon.events,
        )
        site.www.manifest.write_bytes(right)
        for heading in ("A key was lost", "Two people must sign"):
            site.walk.take(heading)
        later = daemon.events[len(events) :]
    return Stolen(events, str(refused.value), status, provider, metrics, copy, later)


# Planned


def test_planned_rotation_fails_no_synchronisation(planned: Planned) -> None:
    assert (planned.status["failures"], planned.status["last_error"]) == (0, "")
    assert planned.status["successes"] > 10
    assert [event for event in planned.events if event["level"] not in ("debug", "info")] == []


def test_planned_rotation_moves_nothing_that_an_alert_reads(planned: Planned) -> None:
    assert (checks(planned.metrics, "failed"), checks(planned.metrics, "success") >= 4) == (0, True)


def test_planned_rotation_logs_the_events_of_the_table(planned: Planned) -> None:
    told = [
        f"{event['event']} {event.get('manifest_version', '')}".strip()
        for event in planned.events
        if event["event"] in ("config-changed", "remote-sync-complete")
    ]
    assert told == [
        *("remote-sync-complete 1", "remote-sync-complete 2"),
        *("config-changed", "remote-sync-complete 2"),
        *("config-changed", "remote-sync-complete 2"),
        "remote-sync-complete 3",
    ]


def test_signers_are_named_in_the_log_step_by_step(site: Site, planned: Planned) -> None:
    said = [event["key_id"] for event in planned.events if event["event"] == "signature-check-success"]
    old, new = (site.walk.names[name] for name in ("2a70c10832eb58e3", "bb20488d9a1b1782"))
    assert list(dict.fromkeys(said)) == [old, f"{old},{new}", new]


# Stolen


def test_manifest_of_the_thief_is_refused_once_the_key_is_replaced(stolen: Stolen) -> None:
    assert ": 1 signature, and none is one of a trusted key (" in stolen.refused
    assert (stolen.status["manifest_version"], stolen.provider) == (4, "remote")


def test_theft_is_logged_and_counted_until_it_is_over(stolen: Stolen) -> None:
    after = stolen.events[names_of(stolen.events).index("config-changed") :]
    failed = [event for event in after if event["event"] == "signature-verification-failed"]
    errors = [event for event in after if event["event"] == "remote-sync-error"]
    assert (len(failed), {event["reason"] for event in errors}) == (len(errors), {"signature"})
    assert checks(stolen.metrics, "failed") == len(failed) == stolen.status["failures"] > 1


def test_restart_is_rid_of_what_the_thief_delivered(site: Site, stolen: Stolen) -> None:
    with running(stolen.copy, environ=site.environ) as daemon:
        daemon.wait_event("remote-restore-failed", reason="signature")
        assert provider_of(daemon) == "memory"


# Lost, and two


def test_nothing_is_refused_when_the_page_is_followed_after_a_loss_and_to_two_signatures(stolen: Stolen) -> None:
    names = names_of(stolen.later)
    assert (names.count("config-changed"), names.count("config-rejected")) == (3, 1)
    assert {"remote-sync-error", "signature-verification-failed"} & set(names) == set()


# What takes effect when


@pytest.fixture(scope="module")
def lasting(site: Site, stolen: Stolen) -> Iterator[Daemon]:
    """The daemon that demands two signatures."""
    (site.directory / "settings" / "app.yml").write_text(settings(site, "keys/2029.pub", "keys/alice.pub", threshold=2))
    with site.running() as daemon:
        yield daemon


def settings(site: Site, *keys: str, threshold: int) -> str:
    url = next(iter(site.walk.names.values()))
    remote = {"manifest_url": f"{url}/manifest.json", "public_keys": keys, "signature_threshold": threshold}
    return f"remote: {json.dumps(remote)}\n"


@pytest.mark.parametrize(
    ("keys", "threshold", "event", "fields"),
    [
        (["keys/alice.pub"], 2, "config-rejected", {}),
        ([], 2, "config-held", {"setting": "remote.public_keys"}),
        (["keys/2029.pub", "keys/alice.pub"], 1, "config-held", {"setting": "remote.signature_threshold"}),
    ],
)
def test_weaker_trust_is_refused_or_held(
    site: Site, lasting: Daemon, keys: list[str], threshold: int, event: str, fields: dict[str, str]
) -> None:
    lasting.lines.clear()
    (site.directory / "settings" / "app.yml").write_text(settings(site, *keys, threshold=threshold))
    lasting.wait_event(event, **fields)
    rows = {row["path"]: row["value"] for row in lasting.client.get("/v1/config")["settings"]}
    assert (rows["remote.public_keys"], rows["remote.signature_threshold"]) == (["keys/2029.pub", "keys/alice.pub"], 2)


def test_file_of_a_key_is_read_at_each_synchronisation(site: Site, lasting: Daemon) -> None:
    file = site.directory / "keys" / "alice.pub"
    before = file.read_bytes()
    shutil.copy(site.publisher / "2028.pub", file)
    with pytest.raises(RemoteError, match=r"signed by 1 of the trusted keys \(\w+\), and 2 must sign"):
        lasting.client.post("/v1/remote/sync", {"dry_run": True})
    file.write_bytes(before)
    assert lasting.client.post("/v1/remote/sync", {"dry_run": True})["outcome"] in ("success", "unchanged")


def test_key_counts_once_however_it_is_written(site: Site, stolen: Stolen, tmp_path: Path) -> None:
    alice = site.publisher / "alice.pub"
    written = f"[{alice}, {public_key(read_signer(site.publisher / 'alice.pem'))}]"
    (tmp_path / "settings").mkdir()
    app = f"remote: {{public_keys: {written}, signature_threshold: 2}}\n"
    (tmp_path / "settings" / "app.yml").write_text(app)
    checked = oneiric(tmp_path, "config", "check")
    assert (checked.returncode, "signature_threshold is 2, with 1 distinct key (" in checked.stderr) == (4, True)


def test_environment_may_not_add_a_key(site: Site, stolen: Stolen) -> None:
    checked = oneiric(site.directory, "config", "check", environ={"ONEIRIC_REMOTE__PUBLIC_KEY": "keys/2028.pub"})
    assert (checked.returncode, "the environment may make remote stricter" in checked.stderr) == (4, True)
