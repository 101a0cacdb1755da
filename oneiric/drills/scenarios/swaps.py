"""Runbook 2: a new instance does not take over, or the old one cannot be closed."""

from __future__ import annotations

from typing import Any, Final

from oneiric.drills.drill import Check, Drill, adapters, answer, app, busy, cache, command, logged, query
from oneiric.drills.sandbox import Sandbox

_ALERT: Final = "OneiricLifecycleSwapFailureRateHigh"
_PLOT: Final = "1 - oneiric:lifecycle_swap_success_rate:5m"
_SWAP: Final = ("swap", "--domain", "adapter", "--key", "cache", "--provider", "redis")
_SLOT: Final = ("status", "--domain", "adapter", "--key", "cache")


def _swaps(outcome: str) -> Check:
    expression = f'sum(rate(oneiric_lifecycle_swap_total{{outcome="{outcome}"}}[10s])) by (domain, key, provider)'
    return query(expression, where=lambda value: value > 0, claim=f"swaps end as {outcome}")


def _failed(reason: str) -> Check:
    return logged("swap-failed", reason=reason, domain="adapter", key="cache")


_STILL_SERVES = answer(*_SLOT, where=lambda d: d["slots"][0]["provider"] == "memory", claim="memory still serves")
_WELL = (
    query("oneiric:lifecycle_swap_success_rate:5m", where=lambda value: value > 0.95, claim="over 0.95"),
    answer(
        *_SLOT,
        where=lambda d: (d["slots"][0]["state"], d["slots"][0]["provider"]) == ("ready", "redis"),
        claim='state="ready", provider="redis"',
    ),
)


def _project(sandbox: Sandbox, redis: dict[str, Any], settings: dict[str, Any], **lifecycle: float) -> None:
    app(sandbox, lifecycle=lifecycle)
    adapters(sandbox, redis, cache("memory", priority=-1), selected="memory", provider_settings={"redis": settings})
    busy(sandbox)


def _swap_in_vain(sandbox: Sandbox) -> None:
    sandbox.oneiric(*_SWAP, expect=1)


def _swap(sandbox: Sandbox) -> None:
    sandbox.oneiric(*_SWAP, expect=0)


def _lose_backend(sandbox: Sandbox) -> None:
    sandbox.backend.stop()
    _swap_in_vain(sandbox)


def _bring_backend_back(sandbox: Sandbox) -> None:
    sandbox.backend.start()
    _swap(sandbox)


def _correct_factory(sandbox: Sandbox) -> None:
    _project(sandbox, cache("redis"), {})
    sandbox.restart()
    _swap(sandbox)


def _allow_more_time(sandbox: Sandbox) -> None:
    _project(sandbox, cache("redis", "slow_cache"), {"delay": 1.5}, activation_timeout=10)
    sandbox.restart()
    _swap(sandbox)


def _unclosable(sandbox: Sandbox) -> None:
    app(sandbox)
    adapters(sandbox, cache("redis"), cache("memory", "UnclosableCache", priority=-1), selected="memory")
    busy(sandbox)


DRILLS: Final = (
    Drill(
        code="2A",
        title="the server behind the new provider is down",
        alert=_ALERT,
        plot=_PLOT,
        prepare=lambda sandbox: _project(sandbox, cache("redis"), {"backend": sandbox.backend.address}),
        inject=_lose_backend,
        diagnosis=(
            _swaps("rollback"),
            _failed("health-check"),
            logged("swap-rollback", failed_provider="redis", provider="memory"),
            logged("health-check-failed", provider="redis"),
            _STILL_SERVES,
        ),
        resolve=_bring_backend_back,
        verification=_WELL,
    ),
    Drill(
        code="2B",
        title="the factory of the new provider cannot be imported",
        alert=_ALERT,
        plot=_PLOT,
        prepare=lambda sandbox: _project(sandbox, cache("redis", "shop_caches.redis:RedisCache"), {}),
        inject=_swap_in_vain,
        diagnosis=(
            _swaps("failed"),
            _failed("factory"),
            Check(
                '{app="oneiric"} | json | event="swap-failed" | error=~".*ImportError.*"',
                lambda sandbox, _monitor: next(
                    line["error"] for line in sandbox.log("swap-failed") if "ImportError" in line["error"]
                ),
            ),
            _STILL_SERVES,
        ),
        resolve=_correct_factory,
        verification=_WELL,
    ),
    Drill(
        code="2C",
        title="the new provider starts slower than the settings allow",
        alert=_ALERT,
        plot=_PLOT,
        prepare=lambda sandbox: _project(sandbox, cache("redis", "slow_cache"), {"delay": 1.5}, activation_timeout=0.5),
        inject=_swap_in_vain,
        diagnosis=(
            _swaps("failed"),
            query(
                "histogram_quantile(0.95, rate(oneiric_lifecycle_swap_duration_ms_bucket[10s]))",
                where=lambda value: value > 100,
                claim="P95 over 100 ms",
            ),
            _failed("timeout"),
            _STILL_SERVES,
        ),
        resolve=_allow_more_time,
        verification=_WELL,
    ),
    Drill(
        code="2D",
        title="the old instance cannot be closed",
        alert="OneiricInstanceLeak",
        plot=(
            "sum(oneiric_lifecycle_swap_total) - sum(oneiric_lifecycle_cleanup_total)"
            " - sum(oneiric_lifecycle_active_instances)"
        ),
        prepare=_unclosable,
        inject=_swap,
        diagnosis=(
            logged("cleanup-failed", provider="memory"),
            query(
                "sum(oneiric_lifecycle_cleanup_failures_total)", where=lambda value: value > 0, claim="a cleanup failed"
            ),
            answer(*_SLOT, where=lambda d: d["slots"][0]["provider"] == "redis", claim="redis serves"),
            command(*_SWAP, "--force", exits=0),
        ),
        resolve=lambda sandbox: sandbox.restart(),
        verification=(
            answer(*_SLOT, where=lambda d: d["slots"][0]["leaked"] == 0, claim="nothing is leaked"),
            query("oneiric:system_active_instances_total:5m", where=lambda value: value == 2, claim="2 instances"),
        ),
    ),
)
