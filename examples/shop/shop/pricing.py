"""What things cost: one protocol and two providers of it."""

from __future__ import annotations

from typing import NamedTuple, Protocol
from zlib import crc32


class Price(NamedTuple):
    """An amount in cents, and the provider that named it."""

    cents: int
    by: str


class Pricing(Protocol):
    """Names the price of an item."""

    async def price(self, item: str) -> Price:
        """Return what *item* costs today."""


class Regular:
    """The price on the label, between 1.00 and 9.99. There is no catalogue: the label follows from the name."""

    async def price(self, item: str) -> Price:
        """Return the price on the label of *item*."""
        return Price(_label(item), "regular")


class Sale:
    """So many *percent* off the price on the label."""

    def __init__(self, percent: int = 20) -> None:
        if not 0 < percent < 100:
            raise ValueError(f"percent must be between 1 and 99, not {percent}")
        self._percent = percent

    async def price(self, item: str) -> Price:
        """Return the reduced price of *item*."""
        return Price(_label(item) * (100 - self._percent) // 100, "sale")


def _label(item: str) -> int:
    return 100 + crc32(item.encode()) % 900
