"""The shop's prices for members: code that reaches the shop in a wheel which a signed manifest names."""

from __future__ import annotations

from shop.pricing import Price, Regular

from shop_member.terms import PERCENT, VERSION


class Member:
    """So many percent off the price on the label, as the terms of this version have it."""

    version = VERSION

    async def price(self, item: str) -> Price:
        """Return the reduced price of *item*."""
        label = await Regular().price(item)
        return Price(label.cents * (100 - PERCENT) // 100, f"member {VERSION}")
