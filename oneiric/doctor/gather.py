"""Many findings of one kind, told as one: whoever reads them at night has one cause to cure, not two hundred."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from oneiric.doctor.finding import Finding

LIMIT: Final = 5
"""Up to so many findings of one kind are told one by one."""
_NAMED: Final = 20


def gathered(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield *findings*; of a kind with more than ``LIMIT`` the first, which names the subjects of the others."""
    kinds: dict[tuple[Any, ...], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(_kind(finding), []).append(finding)
    for alike in kinds.values():
        if len(alike) <= LIMIT:
            yield from alike
        else:
            yield _together(alike)


def _kind(finding: Finding) -> tuple[Any, ...]:
    return finding.code, finding.variant, finding.priority, finding.title, finding.caused_by


def _together(alike: list[Finding]) -> Finding:
    first, *others = sorted(alike, key=lambda one: one.subject)
    named = ", ".join(one.subject for one in others[:_NAMED])
    left = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    return msgspec.structs.replace(
        first,
        subject=f"{first.subject} and {len(others)} others",
        evidence=(*first.evidence, f"the same of {len(others)} others: {named}{left}"),
    )
