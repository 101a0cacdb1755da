"""Two versions of the shop's member prices in one process: a real wheel each, from a real HTTPS server."""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import msgspec
import pytest

from examples.publisher.press import public_key
from oneiric import Runtime, Slot
from oneiric.core.config import RemoteSettings
from oneiric.remote.modules import ROOT
from oneiric.runtime.delivery import Delivery
from oneiric.testing import bare_settings
from tests.examples.shop import SHOP
from tests.harness.delivery import Upstream, serving, trusting

pytestmark = pytest.mark.anyio

PRICING = Slot[Any]("service", "pricing")
TERMS = 'VERSION = "{version}"\nPERCENT = {percent}\n'


class Shelf(NamedTuple):
    """Where the member prices are published."""

    upstream: Upstream

    def publish(self, version: str, percent: int) -> None:
        files = {
            "shop_member/__init__.py": (SHOP / "upstream" / "shop_member" / "__init__.py").read_text(),
            "shop_member/terms.py": TERMS.format(version=version, percent=percent),
        }
        offer = {"domain": "service", "key": "pricing", "provider": "member", "factory": "shop_member:Member"}
        self.upstream.publish(self.upstream.pack("shop-member", version, files, **offer))


class Delivered(NamedTuple):
    """A runtime that is delivered to, and an event that is set when callers have moved to another version."""

    runtime: Runtime
    delivery: Delivery
    moved: anyio.Event


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    monkeypatch.syspath_prepend(str(SHOP))  # the prices build on shop.pricing, as in the shop
    made = Shelf(Upstream(tmp_path / "up"))
    made.publish("1.0", 10)
    yield made
    for name in ("shop", "shop.pricing"):
        sys.modules.pop(name, None)


@asynccontextmanager
async def delivered(shelf: Shelf, url: str) -> AsyncIterator[Delivered]:
    """Open a runtime to which version 1 was delivered."""
    moved = anyio.Event()

    def sink(_level: str, event: str, fields: Mapping[str, Any]) -> None:
        if event == "swap-complete" and fields["previous_provider"]:
            moved.set()

    directory = shelf.upstream.directory.parent
    bare = bare_settings()
    app = msgspec.structs.replace(
        bare.app,
        remote=RemoteSettings(manifest_url=url, public_key=public_key(shelf.upstream.signer)),
        cache_dir=str(directory / "cache"),
        state_dir=str(directory / "state"),
    )
    async with Runtime.open(msgspec.structs.replace(bare, app=app), environ={}, sink=sink) as runtime:
        delivery = Delivery(runtime, environ={})
        await delivery.syncer.sync()
        yield Delivered(runtime, delivery, moved)


@pytest.fixture
async def open_to_delivery(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Delivered]:
    with serving(shelf.upstream, tls=True) as publisher:
        for name, value in trusting(shelf.upstream).items():
            monkeypatch.setenv(name, value)
        async with delivered(shelf, publisher.url) as made:
            yield made


def loaded() -> set[str]:
    """Return the artifacts whose code is loaded."""
    gc.collect()
    return {name.split(".")[1] for name in sys.modules if name.startswith(f"{ROOT}.")}


async def test_lease_of_version_1_runs_its_code_to_the_end_while_version_2_serves(
    shelf: Shelf, open_to_delivery: Delivered
) -> None:
    runtime, delivery, moved = open_to_delivery
    async with anyio.create_task_group() as tasks, runtime.use(PRICING) as one:
        shelf.publish("2.0", 25)
        tasks.start_soon(delivery.syncer.sync)
        with anyio.fail_after(20):
            await moved.wait()
        async with runtime.use(PRICING) as two:
            prices = [await member.price("tea") for member in (one, two, one)]
        versions = (one.version, two.version)
        modules = {type(member).__module__ for member in (one, two)}
    assert versions == ("1.0", "2.0")
    assert prices == [(732, "member 1.0"), (610, "member 2.0"), (732, "member 1.0")]
    assert len(modules) == 2


async def test_version_1_is_unloaded_after_its_last_lease_and_not_before(
    shelf: Shelf, open_to_delivery: Delivered
) -> None:
    runtime, delivery, moved = open_to_delivery
    async with anyio.create_task_group() as tasks, runtime.use(PRICING):
        first = loaded()
        shelf.publish("2.0", 25)
        tasks.start_soon(delivery.syncer.sync)
        with anyio.fail_after(20):
            await moved.wait()
        both = loaded()
    async with runtime.use(PRICING) as two:
        left = loaded()
        kept = type(two).__module__.split(".")[1]
    assert (len(first), len(both), both > first) == (1, 2, True)
    assert left == {kept} == both - first
