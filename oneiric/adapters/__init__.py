"""Built-in adapters, found through the entry point ``oneiric.adapters`` like any other plugin's.

Factories are paths, so that listing what there is imports no implementation.
"""

from __future__ import annotations

from typing import Any, Final

from oneiric.adapters.protocols import Cache, KeyValue
from oneiric.core.candidate import Candidate, Slot

CACHE: Final = Slot[Cache]("adapter", "cache")
KV: Final = Slot[KeyValue]("adapter", "kv")

CANDIDATES: Final[tuple[Candidate[Any], ...]] = (
    Candidate(slot=CACHE, provider="memory", factory="oneiric.adapters.memory:MemoryCache", stack="oneiric"),
    Candidate(
        slot=CACHE,
        provider="redis",
        factory="oneiric.adapters.redis:RedisCache",
        stack="oneiric",
        priority=-1,  # below memory: an installed library does not mean that a server runs
        requires=("redis>=5",),
    ),
    Candidate(slot=KV, provider="sqlite", factory="oneiric.adapters.sqlite:SqliteKeyValue", stack="oneiric"),
    Candidate(
        slot=Slot("adapter", "status"), provider="builtin", factory="oneiric.services.status:Status", stack="oneiric"
    ),
)
