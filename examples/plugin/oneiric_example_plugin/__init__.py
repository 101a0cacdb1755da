"""What this distribution offers. It is imported to be listed, so factories are paths and nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from oneiric import Candidate, Slot
from oneiric.adapters.protocols import Cache

__version__ = "1.2.0"
STACK: Final = "oneiric-example-plugin"

TASKS: Final[tuple[Candidate[Any], ...]] = (
    Candidate(
        slot=Slot("task", "cache-sweep"),
        provider="file",
        factory="oneiric_example_plugin.sweep:Sweep",
        stack=STACK,
        version=__version__,
    ),
)


def adapters() -> Iterator[Candidate[Any]]:
    """Yield the cache. A callable is called at each start: the place to look around first, at a file or a variable."""
    yield Candidate(
        slot=Slot[Cache]("adapter", "cache"),
        provider="file",
        factory="oneiric_example_plugin.cache:FileCache",
        stack=STACK,
        priority=-1,  # below the built-in memory: that a plugin is installed does not mean that it is wanted
        version=__version__,
        capabilities=frozenset({"durable", "shared"}),
        requires=("anyio>=4.11",),  # looked at, never installed: without it explain says what is missing
    )
