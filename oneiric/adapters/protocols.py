"""What the built-in adapters do for their callers.

Keys and values are text that UTF-8 can encode. A store that cannot be reached raises ConnectionError or TimeoutError.
"""

from __future__ import annotations

from typing import Protocol


class KeyValue(Protocol):
    """Keeps a text under a name."""

    async def get(self, key: str) -> str | None:
        """Return what is kept under *key*, or None."""

    async def set(self, key: str, value: str) -> None:
        """Keep *value* under *key*, in place of what was there."""

    async def delete(self, key: str) -> None:
        """Keep nothing under *key*, whether something was there or not."""


class Cache(KeyValue, Protocol):
    """A key/value store that may forget."""

    async def set(self, key: str, value: str, ttl: float | None = None) -> None:
        """Keep *value* under *key*, for *ttl* seconds if given; raises ValueError unless *ttl* is more than 0."""

    async def clear(self) -> None:
        """Forget everything this cache keeps."""
