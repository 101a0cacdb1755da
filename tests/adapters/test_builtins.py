"""The built-ins as users meet them: by entry point, through a runtime."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from oneiric import Runtime, Slot
from oneiric.adapters.protocols import Cache, KeyValue
from oneiric.core.config import DomainSettings, Settings
from oneiric.core.domain import DOMAINS
from oneiric.services.status import Status

CACHE = Slot[Cache]("adapter", "cache")
KV = Slot[KeyValue]("adapter", "kv")


def settings(domain: str, **providers: dict[str, Any]) -> Settings:
    domains = {name: DomainSettings() for name in DOMAINS}
    return Settings(domains={**domains, domain: DomainSettings(provider_settings=providers)})


def test_listing_them_imports_no_implementation() -> None:
    program = (
        "import sys, oneiric.adapters, oneiric.services\n"
        "heavy = {'redis', 'sqlite3', 'asyncio', 'oneiric.adapters.memory', 'oneiric.services.status'}\n"
        "sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_every_factory_stands_where_the_runbook_looks_for_it() -> None:
    import oneiric.adapters as adapters

    text = Path(adapters.__file__).read_text()
    assert [c.factory for c in adapters.CANDIDATES if f'factory="{c.factory}"' not in text] == []


@pytest.mark.anyio
async def test_memory_is_the_cache_unless_redis_is_chosen() -> None:
    async with Runtime.open(Settings()) as runtime:
        assert runtime.resolve(CACHE).require().provider == "memory"
        assert "priority -1 < 0" in str(runtime.resolve(CACHE))
        assert runtime.resolve(CACHE, provider="redis").require().provider == "redis"


@pytest.mark.anyio
async def test_kv_survives_its_runtime(tmp_path: Path) -> None:
    chosen = settings("adapter", sqlite={"path": str(tmp_path / "kv.db")})
    async with Runtime.open(chosen) as runtime, runtime.use(KV) as kv:
        await kv.set("order", "paid")
    async with Runtime.open(chosen) as runtime:
        assert await runtime.proxy(KV).get("order") == "paid"


@pytest.mark.anyio
@pytest.mark.parametrize("domain", ["service", "adapter"])
async def test_status_counts_slots_by_state(domain: str) -> None:
    slot = Slot[Status](domain, "status")
    async with Runtime.open(Settings()) as runtime:
        assert runtime.resolve(slot).require().provider == "builtin"
        async with runtime.use(CACHE), runtime.use(slot) as status:
            report = await status.report()
        assert report == {"ready": 2, "inactive": len(runtime.snapshot().slots) - 2}
