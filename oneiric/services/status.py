"""What a runtime says about itself, for programs that run inside it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oneiric.runtime.runtime import Runtime


class Status:
    """Counts the slots of the runtime it lives in."""

    provider = "builtin"

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def report(self) -> dict[str, int]:
        """Return how many slots are in each state, by the state's name; states without a slot are left out."""
        return dict(Counter(record.state.value for record in self._runtime.snapshot().slots))
