"""What a drill is: settings, a real fault, what the runbook promises to show, its cure, and what proves it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from oneiric.drills.sandbox import DrillFailedError, Sandbox

LOG_TIMEOUT: Final = 10.0
QUERY_TIMEOUT: Final = 60.0
CACHE: Final = "adapter/cache"
_PARTS: Final = "oneiric.drills.parts"


class Monitor(Protocol):
    """Who watches the daemon: a real Prometheus and Alertmanager, or the rules evaluated here."""

    @property
    def name(self) -> str:
        """What it is, in words."""
        ...

    def query(self, expression: str) -> list[float]:
        """Return the values of a PromQL expression now; an empty list when there are none."""
        ...

    def is_firing(self, alert: str) -> bool:
        """Say whether *alert* fires now."""
        ...


class Check(NamedTuple):
    """One line of the runbook: what is typed, and a look at whether it shows what it should.

    ``look`` returns what was seen, or raises DrillFailedError.
    """

    text: str
    look: Callable[[Sandbox, Monitor], str]


@dataclass(frozen=True)
class Drill:
    """One scenario of the runbook.

    ``prepare`` makes the sandbox's project before its daemon starts. ``plot`` is the PromQL of the report's curve.
    ``verdict`` is the code that the doctor must give first; ``cured`` runs after the alert cleared.
    """

    code: str
    title: str
    alert: str
    plot: str
    prepare: Callable[[Sandbox], None]
    inject: Callable[[Sandbox], None]
    diagnosis: tuple[Check, ...]
    resolve: Callable[[Sandbox], None]
    verification: tuple[Check, ...]
    verdict: str = ""
    fire_timeout: float = 60.0
    clear_timeout: float = 60.0
    leaves: int = 0  # the exit code of the daemon when it is stopped in the end
    tags: frozenset[str] = field(default_factory=frozenset)

    @property
    def expected(self) -> str:
        """What the doctor must say first."""
        return self.verdict or self.code


# Checks


def command(*arguments: str, shows: tuple[str, ...] = (), exits: int | None = None) -> Check:
    """Return a check that a command prints each of *shows*, and ends with the exit code *exits* if one is given."""
    text = "oneiric " + " ".join(arguments)

    def look(sandbox: Sandbox, _monitor: Monitor) -> str:
        result = sandbox.oneiric(*arguments, expect=exits, quiet=True)
        missing = [one for one in shows if one not in result.stdout]
        if missing:
            said = (result.stdout or result.stderr).strip()
            raise DrillFailedError(f"{text}: does not show {', '.join(map(repr, missing))} but: {said[:2000]}")
        return _first_line(result.stdout or result.stderr, *shows)

    return Check(text, look)


def answer(*arguments: str, where: Callable[[Any], object], claim: str) -> Check:
    """Return a check that the JSON of a command is as *where* says; *claim* puts that in words."""
    text = "oneiric " + " ".join((*arguments, "--json"))

    def look(sandbox: Sandbox, _monitor: Monitor) -> str:
        document = sandbox.oneiric(*arguments, "--json", quiet=True).document
        if not where(document):
            raise DrillFailedError(f"{text}: not so: {claim}; {json.dumps(document)[:2000]}")
        return claim

    return Check(text, look)


def logged(event: str, query: str = "", **fields: Any) -> Check:
    """Return a check that the daemon logged *event* with *fields*; *query* is the LogQL that finds it."""
    text = query or f'{{app="oneiric"}} | json | event="{event}"'

    def look(sandbox: Sandbox, _monitor: Monitor) -> str:
        sandbox.wait(lambda: bool(sandbox.log(event, **fields)), f"the log to have {text}", timeout=LOG_TIMEOUT)
        found = sandbox.log(event, **fields)
        return f"{len(found)} lines, the last: {json.dumps(found[-1])[:300]}"

    return Check(text, look)


def query(expression: str, *, where: Callable[[float], bool] = lambda _value: True, claim: str = "has data") -> Check:
    """Return a check that one value of a PromQL expression is as *where* says."""

    def look(sandbox: Sandbox, monitor: Monitor) -> str:
        sandbox.wait(
            lambda: any(map(where, monitor.query(expression))), f"{expression}: {claim}", timeout=QUERY_TIMEOUT
        )
        return f"{claim}: {', '.join(f'{value:g}' for value in monitor.query(expression)[:8])}"

    return Check(expression, look)


def _first_line(text: str, *shows: str) -> str:
    lines = text.strip().splitlines()
    return next((line.strip() for line in lines if any(one in line for one in shows)), lines[0] if lines else "")


# Projects


def adapters(sandbox: Sandbox, *candidates: Mapping[str, Any], selected: str = "", **more: Any) -> None:
    """Write ``settings/adapters.yml`` with candidates for ``adapter/cache``, of which *selected* is the selection."""
    document: dict[str, Any] = {"candidates": list(candidates)}
    if selected:
        document["selections"] = {"cache": selected}
    sandbox.write("settings/adapters.yml", {**document, **more})


def cache(provider: str, factory: str = "Cache", **fields: Any) -> dict[str, Any]:
    """Return a candidate for ``adapter/cache`` made of one of the drill's parts, or of ``module:attribute``."""
    path = factory if ":" in factory else f"{_PARTS}:{factory}"
    return {"key": "cache", "provider": provider, "factory": path, **fields}


def busy(sandbox: Sandbox, *slots: str, interval: float = 0.02, keep: bool = False) -> None:
    """Have the daemon call *slots* (``adapter/cache`` by default) all the time."""
    settings = {"slots": list(slots or (CACHE,)), "interval": interval, "keep": keep}
    candidate = {"key": "traffic", "provider": "callers", "factory": f"{_PARTS}:traffic"}
    sandbox.write(
        "settings/services.yml",
        {
            "selections": {"traffic": "callers"},
            "candidates": [candidate],
            "provider_settings": {"callers": settings},
        },
    )


def app(sandbox: Sandbox, **sections: Any) -> None:
    """Write ``settings/app.yml``: short timeouts, and *sections*."""
    lifecycle = {"drain_timeout": 2, "health_interval": 1, "cleanup_timeout": 2, **sections.pop("lifecycle", {})}
    sandbox.write("settings/app.yml", {"lifecycle": lifecycle, "plugins": {"enabled": False}, **sections})
