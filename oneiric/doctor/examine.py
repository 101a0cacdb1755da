"""All rules, applied: what is wrong, the causes and the gravest first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from oneiric.doctor import delivery, memory, premises, resolution, swaps
from oneiric.doctor.finding import Finding
from oneiric.doctor.vitals import Vitals

Rule = Callable[[Vitals], Iterable[Finding]]
RULES: Final[tuple[Rule, ...]] = (
    premises.examine,
    resolution.examine,
    swaps.examine,
    delivery.examine,
    memory.examine,
)


def examine(vitals: Vitals) -> tuple[Finding, ...]:
    """Return every finding about *vitals*; none means that there is nothing to do."""
    found = [finding for rule in RULES for finding in rule(vitals)]
    return tuple(sorted(dict.fromkeys(found), key=Finding.order))
