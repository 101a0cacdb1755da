"""Runbook 1: nobody fills a slot, or what fills it is not well, or the settings cannot be read."""

from __future__ import annotations

from typing import Final

from oneiric.drills.drill import Drill, adapters, answer, app, busy, cache, command, logged, query
from oneiric.drills.sandbox import Sandbox

_ALERT: Final = "OneiricResolutionFailureRateHigh"
_PLOT: Final = "1 - oneiric:resolution_success_rate_global:5m"
_FAILED = query(
    'sum(rate(oneiric_resolution_total{outcome="failed"}[10s])) by (domain, key)',
    where=lambda value: value > 0,
    claim="resolutions fail",
)
_RATE = query("(1 - oneiric:resolution_success_rate_global:5m) * 100", where=lambda value: value > 5, claim="over 5 %")
_LOGGED = logged(
    "resolver-decision",
    '{app="oneiric"} | json | event="resolver-decision" | outcome="failed"',
    outcome="failed",
    domain="adapter",
    key="cache",
)
_WELL = (
    query("oneiric:resolution_success_rate_global:5m", where=lambda value: value > 0.99, claim="over 0.99"),
    command("explain", "cache", "--domain", "adapter", shows=("(active)",), exits=0),
    answer(
        "status",
        "--domain",
        "adapter",
        "--key",
        "cache",
        where=lambda d: d["slots"][0]["state"] == "ready",
        claim="ready",
    ),
)


def _shop(sandbox: Sandbox) -> None:
    app(sandbox)
    adapters(sandbox, cache("redis"), cache("memory"), selected="redis")
    busy(sandbox)


def _backed(sandbox: Sandbox) -> None:
    app(sandbox)
    settings = {"redis": {"backend": sandbox.backend.address}}
    adapters(sandbox, cache("redis"), selected="redis", provider_settings=settings)
    busy(sandbox)


def _withdraw(sandbox: Sandbox) -> None:
    """Lose the registration of every candidate, as when the package that has them is not in the new image."""
    sandbox.write("settings/adapters.yml", {"candidates": []})
    sandbox.restart()


def _select_nobody(sandbox: Sandbox) -> None:
    adapters(sandbox, cache("redis"), cache("memory"), selected="redsi")
    sandbox.restart()


def _select_redis(sandbox: Sandbox) -> None:
    adapters(sandbox, cache("redis"), cache("memory"), selected="redis")


def _lose_backend(sandbox: Sandbox) -> None:
    sandbox.backend.stop()
    sandbox.restart()


def _break_settings(sandbox: Sandbox) -> None:
    sandbox.write("settings/adapters.yml", 'selections:\n  cache: redis\n  cache "memory"\n')


DRILLS: Final = (
    Drill(
        code="1A",
        title="the package that offers the cache is gone after a restart",
        alert=_ALERT,
        plot=_PLOT,
        prepare=_shop,
        inject=_withdraw,
        diagnosis=(
            _FAILED,
            _RATE,
            _LOGGED,
            command("list", "--domain", "adapter", shows=("no candidate is registered",)),
            command("plugins", exits=0),
            command("remote-status", exits=0),
            command("explain", "cache", "--domain", "adapter", shows=("no candidate is registered",), exits=1),
        ),
        resolve=_select_redis,
        verification=_WELL,
    ),
    Drill(
        code="1B",
        title="the settings select a provider that nobody offers",
        alert=_ALERT,
        plot=_PLOT,
        prepare=_shop,
        inject=_select_nobody,
        diagnosis=(
            _FAILED,
            _RATE,
            _LOGGED,
            command("list", "--domain", "adapter", "--show-shadowed", shows=("shadowed", "memory", "redis")),
            command("explain", "cache", "--domain", "adapter", shows=("redsi", "shadowed"), exits=1),
        ),
        resolve=_select_redis,
        verification=_WELL,
    ),
    Drill(
        code="1C",
        title="the server behind the cache is down while the daemon restarts",
        alert=_ALERT,
        plot=_PLOT,
        prepare=_backed,
        inject=_lose_backend,
        diagnosis=(
            _FAILED,
            answer(
                "status",
                "--domain",
                "adapter",
                "--key",
                "cache",
                where=lambda d: "ConnectionRefusedError" in d["slots"][0]["last_error"],
                claim="last_error names the refused connection",
            ),
            logged("health-check-failed", provider="redis"),
            command("health", "--probe", "--domain", "adapter", "--key", "cache"),
        ),
        resolve=lambda sandbox: sandbox.backend.start(),
        verification=_WELL,
    ),
    Drill(
        code="1D",
        title="a settings file is saved with a syntax error",
        alert="OneiricConfigInvalid",
        plot="1 - min(oneiric_config_last_reload_successful)",
        prepare=_shop,
        inject=_break_settings,
        diagnosis=(
            command("config", "check", exits=4),
            logged("config-rejected"),
            answer("status", where=lambda d: "adapters.yml" in d["daemon"]["degraded"], claim="status says which file"),
        ),
        resolve=_select_redis,
        verification=(command("config", "check", exits=0), *_WELL),
    ),
)
