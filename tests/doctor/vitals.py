"""Vitals for the rules about slots: a healthy daemon with one slot, ways to spoil it, and any vitals at all."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from oneiric.doctor.vitals import (
    Attempt,
    Happening,
    MemorySample,
    Offer,
    PluginVital,
    ProcessVital,
    Residue,
    SlotVital,
    Vitals,
)
from tests.doctor.remotes import NOW, at, disk, process, remote

PROBLEM = "settings/adapters.yml:3:9: expected ':' after \"memory\""
REFUSED = "connection: ConnectionRefusedError: [Errno 111] Connect call failed ('127.0.0.1', 6379)"
WHERE = "(adapter/cache redis, factory shop.cache:RedisCache)"
LATE = f"timeout: TimeoutError: no answer within 30 s {WHERE}"
NOT_WELL = "timeout: TimeoutError: no answer within 5 s"
NO_MODULE = "ImportError(ModuleNotFoundError): No module named 'redis'"


def vitals(*slots: SlotVital, **changed: Any) -> Vitals:
    """Return a daemon without remote delivery that is well, with these slots."""
    well: dict[str, Any] = {"at": NOW, "settings": "settings", "slots": slots, "process": process(), "disks": (disk(),)}
    return Vitals(**{**well, **changed})


def slot(**changed: Any) -> SlotVital:
    """Return ``adapter/cache``, selected and served by redis."""
    well: dict[str, Any] = {
        "domain": "adapter",
        "key": "cache",
        "state": "ready",
        "serving": "redis",
        "winner": "redis",
        "summary": "redis (active)",
        "selection": "settings names redis",
        "selected": "redis",
        "wanted": True,
        "instances": 1,
        "offers": (offer(), offer("memory", "shadowed", "not the selection (redis)")),
    }
    return SlotVital(**{**well, **changed})


def unfilled(failure: str, **changed: Any) -> SlotVital:
    """Return the slot with nobody to fill it, and nobody who offers to."""
    bad = {"failure": failure, "winner": "", "serving": "", "state": "inactive", "instances": 0, "offers": ()}
    return slot(**{**bad, "summary": "no candidate is registered", **changed})


def failing(reason: str, error: str, **changed: Any) -> SlotVital:
    """Return the slot with memory serving since redis failed to take over."""
    bad: dict[str, Any] = {
        "serving": "memory",
        "last_error": f"redis: {error}",
        "attempts": (attempt("success", provider="memory", seconds=-3000), attempt("rollback", reason, error)),
    }
    return slot(**{**bad, **changed})


def unserved(reason: str, error: str, **changed: Any) -> SlotVital:
    """Return the slot with nobody serving since redis could not be activated."""
    bad: dict[str, Any] = {
        "serving": "",
        "state": "failed",
        "instances": 0,
        "attempts": (attempt("failed", reason, error, previous=""),),
    }
    return failing(reason, error, **{**bad, **changed})


def offer(provider: str = "redis", verdict: str = "active", reason: str = "settings names redis", **more: Any) -> Offer:
    """Return an offer from the settings."""
    return Offer(**{"provider": provider, "verdict": verdict, "reason": reason, "source": "settings/adapters", **more})


def attempt(outcome: str = "success", reason: str = "", error: str = "", **changed: Any) -> Attempt:
    """Return an attempt of redis, ``seconds`` from now."""
    seconds = changed.pop("seconds", -30.0)
    told: dict[str, Any] = {
        "at": at(seconds),
        "provider": "redis",
        "previous": "memory",
        "outcome": outcome,
        "reason": reason,
        "error": error,
        "duration": 0.2,
    }
    return Attempt(**{**told, **changed})


def residue(kind: str = "held", **changed: Any) -> Residue:
    """Return an old instance of memory that is still there."""
    told: dict[str, Any] = {"provider": "memory", "instance_id": "adapter/cache#1", "age": 720.0}
    return Residue(**{"kind": kind, **told, **changed})


def happening(event: str, seconds: float = -10.0, **fields: Any) -> Happening:
    """Return an event of ``adapter/cache``, ``seconds`` from now."""
    return Happening(at=at(seconds), level="info", event=event, fields={"domain": "adapter", "key": "cache", **fields})


def plugin(error: str = "", name: str = "shop") -> PluginVital:
    """Return a plugin, kept out if there is an error."""
    return PluginVital(name=name, distribution=f"{name}-plugin", error=error)


def swapping(by: str, number: int = 25, every: float = 10.0) -> tuple[Happening, ...]:
    """Return the events of so many swaps of the slot, all done by one."""
    done: list[Happening] = []
    for index in range(number):
        seconds = -every * (number - index)
        done.append(happening("instance-activated", seconds, provider="redis"))
        done.append(happening("swap-complete", seconds, provider="redis", by=by))
    return tuple(done)


def growing(mib: float, *, minutes: int = 30, start: float = 100.0, **changed: Any) -> ProcessVital:
    """Return a daemon of two hours whose memory grew by *mib* evenly over the last *minutes*."""
    samples = tuple(
        sample(-60.0 * (minutes - index), start + mib * index / minutes, changed.get("instances", 3))
        for index in range(minutes + 1)
    )
    resident = samples[-1].resident_bytes
    return process(**{"samples": samples, "resident_bytes": resident, "instances": 3, "active_instances": 3, **changed})


def sample(seconds: float, mib: float, instances: int = 3) -> MemorySample:
    """Return how large the process was."""
    return MemorySample(at=at(seconds), resident_bytes=int(mib * (1 << 20)), instances=instances)


# Any vitals about slots

_ERRORS = st.sampled_from(
    [
        *("", REFUSED, LATE, NOT_WELL, NO_MODULE, f"{NO_MODULE} {WHERE}", "SyntaxError: invalid syntax"),
        *("after the swap: memory: cleanup failed: RuntimeError: no", "redis: " + REFUSED, "quarantined since x: y"),
        *(
            "3 earlier calls of it never ended; it is not called again",
            "ValueError: x (adapter/cache, before_swap hook",
        ),
        *(
            "requires redis>=5: not installed",
            "OSError: No space left on device",
            "no answer within 1e400 s",
            "\n\x1b%{}",
        ),
    ]
) | st.text(max_size=8)
_NAMES = st.sampled_from(["redis", "memory", "cache", "adapter", "service", "", "' ; rm", "-x"])
_NUMBERS = st.integers(-3, 10) | st.integers()
_SECONDS = st.floats() | st.floats(-1, 100)
_WHEN = st.integers(-4000, 10).map(at) | st.datetimes(timezones=st.just(NOW.tzinfo))
_REASONS = st.sampled_from(["", "health-check", "factory", "timeout", "hook", "other"])
_ATTEMPTS = st.builds(
    Attempt,
    at=_WHEN,
    provider=_NAMES,
    previous=_NAMES,
    outcome=st.sampled_from(["success", "failed", "rollback"]),
    reason=_REASONS,
    error=_ERRORS,
    duration=_SECONDS,
)
_OFFERS = st.builds(
    Offer,
    provider=_NAMES,
    verdict=st.sampled_from(["active", "shadowed", "rejected"]),
    reason=_ERRORS,
    source=_NAMES,
    stack_level=_NUMBERS,
)
_RESIDUES = st.builds(
    Residue,
    kind=st.sampled_from(["held", "not-closed", "referenced", "?"]),
    provider=_NAMES,
    instance_id=_NAMES,
    age=_SECONDS,
    leases=_NUMBERS,
    holder=_NAMES,
)
_SLOTS = st.builds(
    SlotVital,
    domain=_NAMES,
    key=_NAMES,
    state=st.sampled_from(["inactive", "ready", "failed", "paused", "stopped"]),
    serving=_NAMES,
    winner=_NAMES,
    failure=st.sampled_from(["", "no-candidates", "all-shadowed", "unhealthy", "config", "unknown-key"]),
    summary=_ERRORS,
    selection=_ERRORS,
    selected=_NAMES,
    wanted=st.booleans(),
    pinned=st.booleans(),
    offers=st.lists(_OFFERS, max_size=3).map(tuple),
    health=_ERRORS,
    last_error=_ERRORS,
    residues=st.lists(_RESIDUES, max_size=4).map(tuple),
    attempts=st.lists(_ATTEMPTS, max_size=3).map(tuple),
    near_misses=st.lists(_NAMES, max_size=2).map(tuple),
)
_EVENTS = ("resolver-decision", "instance-activated", "swap-failed", "swap-complete", "swap-throttled")
_MORE = ("cleanup-failed", "cleanup-started", "config-changed", "config-rejected", "candidate-quarantined")
_HAPPENINGS = st.builds(
    Happening,
    at=_WHEN,
    level=st.just("info"),
    event=st.sampled_from([*_EVENTS, *_MORE, "health-check-failed"]),
    fields=st.fixed_dictionaries(
        {"domain": _NAMES, "key": _NAMES, "provider": _NAMES},
        optional={
            "outcome": st.sampled_from(["success", "failed"]),
            "by": st.sampled_from(["watch", "health", "remote", "uid 0", ""]),
            "file": _NAMES,
            "error": _ERRORS | st.integers(),
            "instance_id": st.just("adapter/cache#9-late"),
        },
    ),
)
_SAMPLES = st.builds(MemorySample, at=_WHEN, resident_bytes=_NUMBERS, instances=_NUMBERS)
_PROCESSES = st.builds(
    ProcessVital,
    pid=_NUMBERS,
    version=st.just("1"),
    started_at=_WHEN,
    resident_bytes=_NUMBERS,
    memory_limit_bytes=st.none() | _NUMBERS,
    active_instances=st.integers(0, 300),
    samples=st.lists(_SAMPLES, max_size=20).map(tuple),
    recent_samples=st.lists(_SAMPLES, max_size=5).map(tuple),
    busiest=st.lists(st.tuples(_NAMES, _NUMBERS), max_size=2).map(tuple),
)
SLOT_VITALS = st.builds(
    Vitals,
    at=st.just(NOW) | _WHEN,
    settings=_NAMES,
    slots=st.lists(_SLOTS, max_size=4).map(tuple),
    plugins=st.lists(st.builds(PluginVital, name=_NAMES, distribution=_NAMES, error=_ERRORS), max_size=2).map(tuple),
    config_problems=st.lists(_ERRORS | st.just(PROBLEM), max_size=3).map(tuple),
    remote=st.none() | st.just(remote(consecutive_failures=3, last_reason="dns")),
    process=st.none() | _PROCESSES | st.just(growing(900.0)),
    recent=st.lists(_HAPPENINGS, max_size=8).map(tuple) | st.just(swapping("watch")),
)
