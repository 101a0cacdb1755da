"""How often a slot may swap by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

WINDOW: Final = 60.0
"""Seconds within which swaps are counted."""


def wait_before(swaps: Sequence[float], *, now: float, per_minute: int) -> float:
    """Return the seconds until one more swap keeps within *per_minute*; 0 when it may begin at once.

    Args:
        swaps: when the earlier ones began, oldest first, on the clock of *now*.
    """
    recent = [at for at in swaps if at > now - WINDOW]
    return 0.0 if len(recent) < per_minute else recent[-per_minute] + WINDOW - now
