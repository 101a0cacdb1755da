"""What is put to the test where this project and the published one of its name promise the same."""

from __future__ import annotations

from typing import Any, Final

CONCURRENT: Final = "100 concurrent swaps of one slot"
HOOK: Final = "a hook after a swap raises"
LATE: Final = "a factory is later than its timeout"
UNHEALTHY: Final = "the new instance is not healthy"
RANK: Final = "stack 4, priority 76 against stack 0, priority 95"
UNSIGNED: Final = "an unsigned manifest, all settings by default"
AGAIN: Final = "a manifest of 10 entries taken 3 times"

ENTRIES: Final = 10
FACTORY: Final = "oneiric.remote.samples:Part"
"""Never imported, but in a module that the published project lets manifests name."""


def manifest() -> dict[str, Any]:
    """Return an unsigned manifest that both can read."""
    entries = [
        {"domain": "adapter", "key": f"part-{number}", "provider": "only", "factory": FACTORY}
        for number in range(ENTRIES)
    ]
    return {"source": "benchmarks", "entries": entries}


def kept(built: int, left_open: int) -> str:
    """Say how many instances there were and are."""
    return f"{built} built, {left_open} never closed"


def serving(is_open: bool) -> str:
    """Say what callers are left with."""
    return "callers have an open instance" if is_open else "callers have a closed instance"
