"""A cache in the memory of this process."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable


class MemoryCache:
    """A bounded cache; a full one forgets what was used least recently. An expired entry goes when it is asked for.

    Args:
        default_ttl: seconds that an entry set without a ``ttl`` lives; it stays when omitted.
        clock: seconds that never go back.
    """

    provider = "memory"

    def __init__(
        self,
        max_entries: int = 10_000,
        default_ttl: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_entries < 1:
            raise ValueError(f"max_entries must be at least 1, not {max_entries}")
        self._default_ttl = math.inf if default_ttl is None else _positive(default_ttl)
        self._max_entries = max_entries
        self._clock = clock
        self._entries: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, key: str) -> str | None:
        """Return what is kept under *key*, or None."""
        if key not in self._entries:
            return None
        value, deadline = self._entries[key]
        if deadline <= self._clock():
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return value

    async def set(self, key: str, value: str, ttl: float | None = None) -> None:
        """Keep *value* under *key*, for *ttl* seconds or the default; raises ValueError unless *ttl* is more than 0."""
        lifetime = self._default_ttl if ttl is None else _positive(ttl)
        self._entries[key] = value, self._clock() + lifetime
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    async def delete(self, key: str) -> None:
        """Keep nothing under *key*."""
        self._entries.pop(key, None)

    async def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    async def aclose(self) -> None:
        """Let go of the memory."""
        self._entries.clear()


def _positive(ttl: float) -> float:
    if not ttl > 0:
        raise ValueError(f"a ttl must be more than 0 seconds, not {ttl}")
    return ttl
