"""Runbook 5: instances that are not closed, memory that is not given back, too many instances, too many swaps."""

from __future__ import annotations

from itertools import cycle
from typing import Any, Final

from oneiric.drills.drill import Drill, adapters, answer, app, busy, cache, command, logged, query
from oneiric.drills.sandbox import Sandbox

_INSTANCES: Final = "sum(oneiric_lifecycle_active_instances)"
_LEAKS: Final = f"sum(oneiric_lifecycle_swap_total) - sum(oneiric_lifecycle_cleanup_total) - {_INSTANCES}"
_MANY: Final = 205
_WELL = query(
    "oneiric:system_active_instances_total:5m", where=lambda value: 0 < value < 100, claim="fewer than 100 instances"
)


def _two(sandbox: Sandbox, **lifecycle: Any) -> None:
    app(sandbox, lifecycle=lifecycle, watch={"debounce": 0.05})
    adapters(sandbox, cache("redis"), cache("memory"), selected="memory")


def _forgetful(sandbox: Sandbox) -> None:
    _two(sandbox, drain_timeout=1)
    busy(sandbox, keep=True)


def _swap(sandbox: Sandbox) -> None:
    sandbox.oneiric("swap", "--domain", "adapter", "--key", "cache", "--provider", "redis", expect=0)


def _mend_callers(sandbox: Sandbox) -> None:
    busy(sandbox, keep=False)
    sandbox.restart()


def _hoarding(sandbox: Sandbox) -> None:
    app(sandbox)
    _hoarder(sandbox, 0)
    busy(sandbox, interval=0.05)


def _hoarder(sandbox: Sandbox, step_kib: int) -> None:
    settings = {"memory": {"step_kib": step_kib}}
    adapters(sandbox, cache("memory", "HoardingCache"), selected="memory", provider_settings=settings)


def _hoard(sandbox: Sandbox) -> None:
    _hoarder(sandbox, 512)


def _mend_provider(sandbox: Sandbox) -> None:
    adapters(sandbox, cache("memory"), selected="memory")
    sandbox.restart()


def _many(sandbox: Sandbox, number: int) -> None:
    names = [f"part-{index}" for index in range(number)]
    candidates = [{**cache("plain"), "key": name} for name in names]
    sandbox.write("settings/adapters.yml", {"selections": dict.fromkeys(names, "plain"), "candidates": candidates})


def _few(sandbox: Sandbox) -> None:
    app(sandbox)
    _many(sandbox, 3)


def _flap(sandbox: Sandbox) -> None:
    """Have a broken configuration tool save another selection several times a second."""
    selections = cycle(("redis", "memory"))

    def save() -> None:
        adapters(sandbox, cache("redis"), cache("memory"), selected=next(selections))

    sandbox.repeat(save, interval=0.25)


def _fewer(sandbox: Sandbox) -> None:
    _many(sandbox, 3)
    sandbox.restart()


def _unthrottled(sandbox: Sandbox) -> None:
    _two(sandbox, max_swaps_per_minute=1000)
    busy(sandbox)


def _pause_watching(sandbox: Sandbox) -> None:
    sandbox.oneiric("watch", "pause", expect=0)
    sandbox.stop_repeating()
    sandbox.oneiric("watch", "resume", expect=0)


DRILLS: Final = (
    Drill(
        code="5A",
        title="a caller never gives its lease back, so old instances stay",
        alert="OneiricInstanceLeak",
        plot=_LEAKS,
        prepare=_forgetful,
        inject=_swap,
        diagnosis=(
            logged("instance-leaked", provider="memory"),
            query(_LEAKS, where=lambda value: value >= 1, claim="more put in place than cleaned up"),
            answer(
                "status",
                "--domain",
                "adapter",
                where=lambda d: d["slots"][0]["leaks"][0]["holder"] == "traffic",
                claim="status names who holds it",
            ),
            logged("instance-activated", provider="redis"),
        ),
        resolve=_mend_callers,
        verification=(_WELL,),
        leaves=0,
    ),
    Drill(
        code="5B",
        title="a provider keeps what it should give back",
        alert="OneiricMemoryGrowing",
        plot="max(process_resident_memory_bytes)",
        prepare=_hoarding,
        inject=_hoard,
        diagnosis=(
            query("max(process_resident_memory_bytes)", where=lambda value: value > 3.5e8, claim="over 350 MB"),
            query(_INSTANCES, where=lambda value: value == 2, claim="still 2 instances"),
            command("status", "--domain", "adapter", exits=0),
        ),
        resolve=_mend_provider,
        verification=(
            query("max(process_resident_memory_bytes)", where=lambda value: value < 1.2e8, claim="below 120 MB"),
            _WELL,
        ),
    ),
    Drill(
        code="5C",
        title=f"{_MANY} components are selected",
        alert="OneiricActiveInstancesExtremelyHigh",
        plot=_INSTANCES,
        prepare=_few,
        inject=lambda sandbox: _many(sandbox, _MANY),
        diagnosis=(
            query("oneiric:system_active_instances_total:5m", where=lambda value: value >= 200, claim="200 or more"),
            query("sum(oneiric_lifecycle_active_instances) by (domain)", where=lambda value: value >= 200),
            query("oneiric:system_memory_usage_estimate_bytes:5m / (1024^3)", where=lambda value: value > 9),
            command("doctor", "--size", str(_MANY), exits=0),
        ),
        resolve=_fewer,
        verification=(_WELL,),
    ),
    Drill(
        code="5D",
        title="a configuration tool changes a selection several times a second",
        alert="OneiricRapidSwapping",
        plot="sum(increase(oneiric_lifecycle_swap_total[10s]))",
        prepare=_unthrottled,
        inject=_flap,
        diagnosis=(
            query(
                "sum(rate(oneiric_lifecycle_swap_total[10s])) by (domain, key)",
                where=lambda value: value > 1,
                claim="more than one swap a second",
            ),
            logged("config-changed", domain="adapter"),
        ),
        resolve=_pause_watching,
        verification=(_WELL,),
    ),
)
