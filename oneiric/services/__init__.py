"""Built-in services, found through the entry point ``oneiric.services`` like any other plugin's."""

from __future__ import annotations

from typing import Any, Final

from oneiric.core.candidate import Candidate, Slot

CANDIDATES: Final[tuple[Candidate[Any], ...]] = (
    Candidate(
        slot=Slot("service", "status"), provider="builtin", factory="oneiric.services.status:Status", stack="oneiric"
    ),
)
