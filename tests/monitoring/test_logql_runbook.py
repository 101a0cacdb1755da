"""Every query of the runbook finds, in a real daemon's log, the lines of the faults provoked, and no others."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from examples.publisher.press import new_key
from examples.publisher.serve import Publisher, fail, hang, tamper
from oneiric.errors import OneiricError
from oneiric.remote.signing import Signer
from tests.adapters.redis_server import free_port
from tests.harness.daemon import Daemon, running, wait_until
from tests.harness.delivery import Upstream, serving
from tests.harness.hazards import CACHE, CANDIDATES, at_work, hazardous, swap_to
from tests.harness.logql import ERROR, STREAM, Found, Selection, parse, select
from tests.monitoring.runbook import QUERIES, other_queries

OURS = other_queries()
MANIFEST = "/manifest.json"
SLOW = {"domain": "adapter", "key": "slow"}
ADAPTERS = (
    CANDIDATES.replace("selections: {cache: memory}", "selections: {cache: memory, queue: nobody}").rstrip()
    + """
  - {key: cache, provider: unclosable, factory: "failing:Unclosable", priority: -1}
  - {key: cache, provider: misspelt, factory: "providers:Nothing", priority: -1}
  - {key: slow, provider: quick, factory: "providers:Memory", priority: 5}
  - {key: slow, provider: gated, factory: "hazards:gated"}
"""
)
FAILING = """
from providers import Memory

class Unclosable(Memory):
    async def aclose(self):
        raise OSError("held by another")
"""


class Artifact(NamedTuple):
    """An artifact as logs call it, its digest, and that of what lay or came in its place."""

    name: str
    digest: str
    wrong: str


class Story(NamedTuple):
    """What the daemon wrote from its start to its end, and what could not be known before."""

    lines: tuple[str, ...]
    cached: Artifact
    served: Artifact
    stranger: str

    @property
    def ended_at(self) -> datetime:
        """When the last line was written."""
        return datetime.fromisoformat(json.loads(self.lines[-1])["timestamp"])

    def found(self, line: int) -> list[Found]:
        """Return what the query on *line* of the runbook finds; the artifact that it leaves open is the cached one."""
        return select(QUERIES[line].replace("<artifact>", self.cached.name), self.lines)

    def texts(self, line: int) -> list[str]:
        """Return the lines that the query on *line* finds, as they read then."""
        return [found.text for found in self.found(line)]

    def fields(self, line: int, *names: str) -> list[tuple[str, ...]]:
        """Return these fields of what the query on *line* finds."""
        return [tuple(found.labels[name] for name in names) for found in self.found(line)]


# The story


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    """A daemon is started, its slots and its publisher fail in every way of the runbook, and it is stopped."""
    with TemporaryDirectory(prefix="oneiric-") as directory:
        upstream, port = Upstream(Path(directory) / "up"), free_port()
        upstream.publish()
        url = f"http://127.0.0.1:{port}{MANIFEST}"
        app = upstream.settings(url, timeout=1, refresh_interval=86_400, reset_timeout=3600)
        app += "lifecycle: {activation_timeout: 60}\n"
        place = hazardous(Path(directory) / "p", app=app, adapters=ADAPTERS)
        (place / "failing.py").write_text(FAILING)
        os.mkfifo(place / "gate")
        stranger = new_key()
        with ExitStack() as online:
            publisher = online.enter_context(serving(upstream, port=port))
            with running(place) as daemon:
                daemon.wait_event("remote-sync-complete")
                with slow_swap(daemon):
                    swap_in_vain(daemon)
                    swap_back_and_forth(daemon)
                    fall_ill(daemon)
                    cached = corrupt_cache(daemon, upstream)
                    served = publish_what_is_refused(daemon, upstream, publisher, stranger)
                    lose_publisher(daemon, publisher, online)
                    upstream.publish(upstream.entry("2.0"))
                    online.enter_context(serving(upstream, port=port))
                    sync(daemon)
                    change_settings(daemon)
        yield Story(tuple(daemon.lines), cached, served, stranger.key.id)


@contextmanager
def slow_swap(daemon: Daemon) -> Iterator[None]:
    """Swap ``adapter/slow`` meanwhile, in more than ten seconds."""
    daemon.client.post("/v1/swap", {**SLOW, "provider": "quick"})
    swap = threading.Thread(target=daemon.client.post, args=("/v1/swap", {**SLOW, "provider": "gated"}))
    swap.start()
    try:
        with at_work(daemon.directory):
            begun = time.monotonic()
            yield
            wait_until(lambda: time.monotonic() > begun + 10, "the swap takes ten seconds")
    finally:
        swap.join()


def swap_in_vain(daemon: Daemon) -> None:
    """Ask for providers that are sick, raise, are in no module, and are not in theirs."""
    for provider in IN_VAIN:
        with pytest.raises(OneiricError):
            daemon.client.post("/v1/swap", swap_to(provider))


def swap_back_and_forth(daemon: Daemon) -> None:
    """Swap to another and back, to one that cannot be closed and back."""
    for provider in SWAPS:
        daemon.client.post("/v1/swap", swap_to(provider))


def fall_ill(daemon: Daemon) -> None:
    """Let a probe find the instance that serves unhealthy, and the next find it well."""
    (daemon.directory / "sick").touch()
    daemon.client.post("/v1/probe", CACHE)
    (daemon.directory / "sick").unlink()
    daemon.client.post("/v1/probe", CACHE)


def corrupt_cache(daemon: Daemon, upstream: Upstream) -> Artifact:
    """Change a byte of the cached artifact; the next synchronisation heals it."""
    file = daemon.directory / ".oneiric_cache" / "artifacts" / upstream.artifact
    right = file.read_bytes()
    file.write_bytes(b"x" + right[1:])
    sync(daemon)
    return Artifact(file.name, digest(right), digest(b"x" + right[1:]))


def publish_what_is_refused(daemon: Daemon, upstream: Upstream, publisher: Publisher, stranger: Signer) -> Artifact:
    """Serve another artifact than the signed manifest names, then a manifest that a stranger signed."""
    entry = upstream.entry("2.0")
    upstream.publish(entry)
    wheel: Path = entry["wheel"]
    right = wheel.read_bytes()
    publisher.faults[f"/{wheel.name}"] = tamper
    fail_to_sync(daemon)
    publisher.faults.clear()
    artifact = upstream.artifact
    upstream.publish(signer=stranger)
    fail_to_sync(daemon)
    return Artifact(artifact, digest(right), digest(right[:-1] + bytes([right[-1] ^ 1])))


def lose_publisher(daemon: Daemon, publisher: Publisher, online: ExitStack) -> None:
    """Have the publisher say nothing, which opens the breaker, answer 404 to an operator who insists, and be gone."""
    publisher.faults[MANIFEST] = hang
    fail_to_sync(daemon)
    assert daemon.client.post("/v1/remote/sync")["outcome"] == "skipped"
    publisher.faults[MANIFEST] = fail(404)
    fail_to_sync(daemon, force=True)
    online.close()
    fail_to_sync(daemon, force=True)


def change_settings(daemon: Daemon) -> None:
    """Change a file of the settings."""
    with (daemon.directory / "settings" / "services.yml").open("a") as file:
        file.write("# looked at\n")
    daemon.wait_event("config-changed")


def sync(daemon: Daemon) -> None:
    daemon.client.post("/v1/remote/sync", {"force": True})


def fail_to_sync(daemon: Daemon, *, force: bool = False) -> None:
    with pytest.raises(OneiricError):
        daemon.client.post("/v1/remote/sync", {"force": force})


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# What each query finds

IN_VAIN = {
    "sick": "health() returned False, not True",
    "exploding": "RuntimeError: no such luck (adapter/cache exploding, factory providers:explode)",
    "lost": "ImportError(ModuleNotFoundError): No module named 'no' (adapter/cache lost, factory no.such.module:Cache)",
    "misspelt": "ImportError: module 'providers' has no 'Nothing' (adapter/cache misspelt, factory providers:Nothing)",
}
SWAPS = ("redis", "memory", "unclosable", "memory")


@pytest.mark.parametrize("line", QUERIES)
def test_query_of_the_runbook_finds_lines_and_none_with_an_error(line: int, story: Story) -> None:
    found = story.found(line)
    assert found
    assert not [one.labels for one in found if ERROR in one.labels]


@pytest.mark.parametrize("line", [line for line, query in QUERIES.items() if "line_format" in query])
def test_fields_that_a_query_prints_are_never_empty(line: int, story: Story) -> None:
    names = re.findall(r"{{\.(\w+)}}", QUERIES[line])
    assert names
    assert not [one.labels for one in story.found(line) if not all(one.labels.get(name) for name in names)]


def test_failed_resolutions_are_those_of_the_slot_that_nobody_fills(story: Story) -> None:
    found = story.fields(183, "domain", "key", "provider", "error")
    assert set(found) == {("adapter", "queue", "", "No candidate found for adapter/queue: no candidate is registered")}
    assert set(story.texts(186)) == {"adapter/queue"}
    assert len(story.texts(186)) == len(found)


def test_resolutions_that_succeeded_are_each_change_of_a_winner(story: Story) -> None:
    found = story.fields(338, "key", "provider")
    assert [provider for key, provider in found if key == "cache"] == ["memory", *SWAPS]
    assert [provider for key, provider in found if key == "slow"] == ["quick", "gated"]
    assert len(found) == 7


def test_failed_swaps_are_all_that_were_in_vain_with_their_errors(story: Story) -> None:
    assert story.fields(415, "domain", "key", "provider", "error") == [
        ("adapter", "cache", *one) for one in IN_VAIN.items()
    ]
    assert story.texts(421) == [f"adapter/cache: {error}" for error in IN_VAIN.values()]


def test_rollback_is_that_of_the_one_that_was_built(story: Story) -> None:
    assert story.fields(418, "domain", "key", "provider", "failed_provider", "error") == [
        ("adapter", "cache", "memory", "sick", IN_VAIN["sick"])
    ]


def test_swap_history_is_told_in_order_with_the_time_of_each(story: Story) -> None:
    told = [text.split(": ") for text in story.texts(431)]
    times = [datetime.fromisoformat(time) for time, _ in told]
    in_vain = ["swap-failed", "swap-rollback", *["swap-failed"] * 3]
    assert [what for _, what in told] == [
        *(f"{event} adapter/cache" for event in in_vain),
        *["swap-complete adapter/cache"] * len(SWAPS),
        "swap-complete adapter/slow",
    ]
    assert times == sorted(times)
    assert all(time.utcoffset() is not None for time in times)


def test_failed_health_checks_are_those_of_the_new_one_and_of_the_one_that_fell_ill(story: Story) -> None:
    assert story.fields(294, "domain", "key", "provider") == [
        ("adapter", "cache", "sick"),
        ("adapter", "cache", "memory"),
    ]
    assert story.texts(450) == [f"{provider}: health() returned False, not True" for provider in ("sick", "memory")]


def test_import_errors_are_the_missing_module_and_the_missing_name(story: Story) -> None:
    assert story.fields(485, "provider") == [("lost",), ("misspelt",)]


def test_slow_swap_is_the_one_that_took_more_than_ten_seconds(story: Story) -> None:
    ((key, provider, took),) = story.fields(512, "key", "provider", "duration_ms")
    assert (key, provider, 10_000 < float(took) < 60_000) == ("slow", "gated", True)


def test_failed_cleanup_is_that_of_the_one_that_cannot_be_closed(story: Story) -> None:
    assert story.fields(537, "domain", "key", "provider", "error") == [
        ("adapter", "cache", "unclosable", "OSError: held by another")
    ]


def test_every_cleanup_that_started_ended_once_under_the_same_id(story: Story) -> None:
    found = story.fields(1107, "event", "provider", "instance_id")
    started = [(provider, number) for event, provider, number in found if event == "cleanup-started"]
    ended = [(provider, number) for event, provider, number in found if event != "cleanup-started"]
    assert sorted(started) == sorted(ended)
    assert len({number for _, number in started}) == len(started)
    assert Counter(provider for provider, _ in started) == {
        "sick": 1,
        "memory": 3,
        "redis": 1,
        "unclosable": 1,
        "quick": 1,
        "gated": 1,
    }


def test_activated_instances_are_all_that_ever_served(story: Story) -> None:
    cache = [f"adapter/cache: {provider}" for provider in ("memory", *SWAPS)]
    assert sorted(story.texts(1092)) == sorted([*cache, "adapter/slow: quick", "adapter/slow: gated"])


def test_failed_syncs_are_all_that_were_provoked_in_order(story: Story) -> None:
    assert story.fields(638, "source", "reason", "consecutive_failures", "circuit_breaker") == [
        ("remote", "digest", "1", "closed"),
        ("remote", "signature", "2", "closed"),
        ("remote", "timeout", "3", "open"),
        ("remote", "http", "4", "open"),
        ("remote", "connection", "5", "open"),
    ]


def test_network_errors_are_the_silence_and_the_refused_connection(story: Story) -> None:
    assert story.fields(641, "reason") == [("timeout",), ("connection",)]


@pytest.mark.parametrize("line", [644, 713, 966])
def test_failed_signature_is_the_strangers_by_its_key(line: int, story: Story) -> None:
    ((source, key_id, error),) = story.fields(line, "source", "key_id", "error")
    assert (source, key_id, error.startswith("signature: TrustError: ")) == ("remote", story.stranger, True)


def test_failed_digests_are_the_corrupted_and_the_tampered_artifact(story: Story) -> None:
    wrong = (story.cached, story.served)
    assert story.fields(748, "artifact", "expected_digest", "actual_digest") == list(wrong)
    assert story.texts(854) == [f"{name}: {expected} != {actual}" for name, expected, actual in wrong]


def test_right_digests_are_those_of_the_artifacts_once_they_were_right(story: Story) -> None:
    cached, served = (story.cached.name, story.cached.digest), (story.served.name, story.served.digest)
    assert story.fields(990, "artifact", "actual_digest") == [cached, cached, served]
    assert story.fields(920, "artifact", "expected_digest") == [cached, cached]


def test_open_breaker_is_on_the_failures_from_the_one_that_opened_it(story: Story) -> None:
    assert story.fields(772, "event", "reason") == [
        ("remote-sync-error", reason) for reason in ("timeout", "http", "connection")
    ]


def test_words_to_look_for_when_the_breaker_is_open_are_in_the_log(story: Story) -> None:
    found = select('{app="oneiric"} |= "circuit breaker open" | json', story.lines)
    assert [(one.labels["event"], one.labels["state"]) for one in found] == [("circuit-breaker-changed", "open")]


def test_changed_settings_are_told_with_time_and_file(story: Story) -> None:
    (text,) = story.texts(1189)
    time, _, file = text.partition(": ")
    assert (datetime.fromisoformat(time).utcoffset() is not None, file) == (True, "settings/services.yml")


# Our own queries, and all lines


@pytest.mark.parametrize("where", OURS)
def test_query_of_ours_finds_no_line_with_an_error(where: str, story: Story) -> None:
    query = parse(OURS[where])
    if isinstance(query, Selection):
        assert not [found.labels for found in query.select(story.lines, STREAM) if ERROR in found.labels]
    else:
        assert query.measure(story.lines, story.ended_at, STREAM)


def test_every_line_is_a_flat_object_that_says_when_how_grave_what_and_who(story: Story) -> None:
    documents = [json.loads(line) for line in story.lines]
    assert all({"timestamp", "level", "event", "logger"} <= one.keys() for one in documents)
    assert not [one for one in documents if any(isinstance(value, dict | list) for value in one.values())]


def test_no_field_has_the_name_of_a_stream_label(story: Story) -> None:
    assert not [line for line in story.lines if {"app", "instance"} & json.loads(line).keys()]
