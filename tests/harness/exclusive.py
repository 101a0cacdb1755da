"""Two candidates that own the same thing, and what callers and operators do with them."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from oneiric import Runtime, SwapFailedError
from oneiric.testing import PART, Part, Workshop
from tests.harness.slots import pause


def two(workshop: Workshop, sole: type[Part], **of_b: Any) -> list[Any]:
    """Two that own the same thing; a is chosen."""
    return [
        workshop.candidate("a", exclusive=True, kind=sole, build=pause, priority=1),
        workshop.candidate("b", **{"exclusive": True, "kind": sole, "build": pause, **of_b}),
    ]


async def hold(runtime: Runtime, seconds: float, *, task_status: Any) -> None:
    """Hold a lease for so long, then work with it; starts with the instance."""
    async with runtime.use(PART) as part:
        task_status.started(part)
        await anyio.sleep(seconds)
        await part.work()


async def fail_to_swap(runtime: Runtime, provider: str = "b") -> SwapFailedError:
    """Swap to *provider*, which must fail; return the error."""
    with pytest.raises(SwapFailedError) as caught:
        await runtime.swap(PART, provider=provider)
    return caught.value
