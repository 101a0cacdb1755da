"""What a diagnosis says: the runbook and scenario, the evidence, what to type, and what will confirm the cure."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

Priority = Literal["P0", "P1", "P2", "P3"]

RUNBOOKS: Final = {
    1: "Resolution Failures",
    2: "Hot-Swap Failures",
    3: "Remote Sync Failures",
    4: "Cache Corruption",
    5: "Memory Exhaustion",
}
SCENARIOS: Final = {
    "1A": "No Candidates Registered",
    "1B": "All Candidates Shadowed",
    "1C": "Health Check Failures",
    "1D": "Config File Errors",
    "2A": "Health Check Failures",
    "2B": "Factory Import Errors",
    "2C": "Swap Timeout",
    "2D": "Cleanup Failures",
    "3A": "Network Issues",
    "3B": "Signature Verification Failed",
    "3C": "Digest Mismatch",
    "3D": "Circuit Breaker Open",
    "4A": "Single Artifact Corruption (Disk Error)",
    "4B": "Multiple Artifacts Corrupted (Possible Attack)",
    "4C": "Manifest Tampering",
    "5A": "Instance Leak (Cleanup Not Called)",
    "5B": "Memory Leak in Provider",
    "5C": "Too Many Domains/Keys",
    "5D": "Rapid Swapping Loop",
}
"""The scenarios of the incident runbook, by runbook number and letter."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong.

    ``code`` is a scenario of the runbook (``1A``), or a word for what no runbook covers (``disk``, ``daemon``).
    ``variant`` narrows it down: ``plugin missing``, ``key rotation``. ``commands`` can be typed as they are;
    ``confirm`` says what will show that it is over. ``caused_by`` is the code of the finding this one follows from.
    """

    code: str
    priority: Priority
    title: str
    subject: str = ""
    variant: str = ""
    evidence: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    confirm: tuple[str, ...] = ()
    caused_by: str = ""

    @property
    def runbook(self) -> int | None:
        """The runbook's number, None for what none covers."""
        return int(self.code[0]) if self.code in SCENARIOS else None

    @property
    def heading(self) -> str:
        """The scenario as the runbook calls it, or the code."""
        if self.code not in SCENARIOS:
            return self.code
        number, letter = self.code[0], self.code[1]
        return f"Runbook {number} ({RUNBOOKS[int(number)]}), scenario {letter}: {SCENARIOS[self.code]}"

    def order(self) -> tuple[Any, ...]:
        """What findings are sorted by: causes before what follows from them, then the gravest."""
        return (bool(self.caused_by), self.priority, self.code, self.subject)
