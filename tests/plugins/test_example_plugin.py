"""``examples/plugin`` does what its README says, for a program that installed it."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from oneiric import Slot
from oneiric.core.config import PluginsSettings
from oneiric.core.resolution import Host, Policy, resolve
from oneiric.plugins.discovery import discover, registered
from tests.adapters.contract import CacheContract, Clock, World
from tests.harness.daemon import running
from tests.plugins.installed import python

CACHE = Slot[Any]("adapter", "cache")
NAMED = "selections: {cache: file}\nprovider_settings: {file: {directory: kept}}\n"
ABLE = "capabilities: {cache: [durable]}\n"

LIST = """
import json, sys
from oneiric.core.config import PluginsSettings
from oneiric.plugins.discovery import discover
rows = [
    [*plugin.entry_point, plugin.error, [f"{c.slot} {c.provider} {c.version}" for c in plugin.candidates]]
    for plugin in discover(PluginsSettings()) if plugin.entry_point.distribution == "oneiric-example-plugin"
]
print(json.dumps([rows, [name for name in sys.modules if name.startswith("oneiric_example_plugin.")]]))
"""
RUN = """
import anyio
from oneiric import Runtime, Slot
CACHE, SWEEP = Slot("adapter", "cache"), Slot("task", "cache-sweep")
async def main():
    async with Runtime.open() as runtime:
        {body}
anyio.run(main)
"""
EXPLAIN = RUN.format(body="print(runtime.resolve(CACHE))")
USE = RUN.format(
    body="""
        async with runtime.use(CACHE) as cache:
            print(cache.provider, await cache.get("order"))
            await cache.set("order", "paid")
"""
)
SWEEP = RUN.format(
    body="""
        async with runtime.use(SWEEP) as sweep:
            print(await sweep.run())
"""
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A program's directory."""
    (tmp_path / "settings").mkdir()
    return tmp_path


@pytest.fixture(scope="class")
def importable(example: Path) -> Iterator[Path]:
    """The plugin's directory, on this process's own path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(example)
        yield example
    for name in [name for name in sys.modules if name.startswith("oneiric_example_plugin")]:
        del sys.modules[name]


def configure(place: Path, **files: str) -> None:
    for name, text in files.items():
        (place / "settings" / f"{name}.yml").write_text(text)


# Found


def test_both_entry_points_are_listed_with_distribution_and_version(example: Path, place: Path) -> None:
    rows, _ = json.loads(python(example, place, LIST))
    assert rows == [
        ["oneiric.adapters", "cache", "oneiric_example_plugin:adapters", "oneiric-example-plugin", "1.2.0", "",
         ["adapter/cache file 1.2.0"]],
        ["oneiric.tasks", "sweep", "oneiric_example_plugin:TASKS", "oneiric-example-plugin", "1.2.0", "",
         ["task/cache-sweep file 1.2.0"]],
    ]  # fmt: skip


def test_listing_imports_no_implementation(example: Path, place: Path) -> None:
    _, imported = json.loads(python(example, place, LIST))
    assert imported == []


# Chosen


def test_installing_it_changes_nothing_until_it_is_chosen(example: Path, place: Path) -> None:
    text = python(example, place, EXPLAIN)
    assert text.startswith("adapter/cache: memory (active)")
    assert "file    priority -1 < 0; from plugin oneiric.adapters:oneiric-example-plugin:cache" in text


@pytest.mark.parametrize("settings", [NAMED, ABLE], ids=["by name", "by capability"])
def test_settings_choose_it(settings: str, example: Path, place: Path) -> None:
    configure(place, adapters=settings)
    assert python(example, place, EXPLAIN).startswith("adapter/cache: file (active)")


def test_explain_names_its_requirement_where_that_is_missing(importable: Path) -> None:
    registry, _ = registered(discover(PluginsSettings(), path=[str(importable)]))
    bare = Policy(host=Host(installed=lambda name: None))
    text = "rejected  file  requires anyio>=4.11: not installed; try: pip install 'anyio>=4.11'"
    assert text in str(resolve(registry, bare, CACHE))


# Used


def test_entry_outlives_the_process_that_set_it(example: Path, place: Path) -> None:
    configure(place, adapters=NAMED)
    assert [python(example, place, USE) for _ in range(2)] == ["file None\n", "file paid\n"]


def test_sweep_removes_what_expired_was_damaged_or_left_unfinished_and_nothing_else(example: Path, place: Path) -> None:
    configure(place, tasks="provider_settings: {file: {directory: kept}}\n")
    kept = place / "kept"
    kept.mkdir()
    (kept / "expired.json").write_text('["v", 1]')
    (kept / "damaged.json").write_text('["v", ')
    (kept / "lasting.json").write_text('["v", null]')
    (kept / "later.json").write_text('["v", 99999999999]')
    (kept / "being-written.part").write_text("[")
    (kept / "somebody-else").write_text("")
    assert python(example, place, SWEEP) == "2\n"
    assert sorted(path.name for path in kept.iterdir()) == [
        "being-written.part", "lasting.json", "later.json", "somebody-else",
    ]  # fmt: skip


def test_daemon_swaps_to_it_and_lists_it(example: Path, place: Path) -> None:
    configure(place, adapters="selections: {cache: memory}\nprovider_settings: {file: {directory: kept}}\n")
    with running(place, environ={"PYTHONPATH": str(example)}) as daemon:
        daemon.client.post("/v1/swap", {"domain": "adapter", "key": "cache", "provider": "file"})
        row, plugins = daemon.slot("adapter", "cache"), daemon.client.get("/v1/plugins")["plugins"]
    assert (row["state"], row["provider"]) == ("ready", "file")
    assert ["adapter/cache file"] in [plugin["candidates"] for plugin in plugins]


def test_disabled_it_is_a_row_and_offers_nothing(example: Path, place: Path) -> None:
    configure(place, app="plugins: {disabled: [oneiric-example-plugin]}\n")
    text = python(example, place, EXPLAIN)
    assert "file" not in text


# The cache itself


class TestFile(CacheContract):
    @pytest.fixture(scope="class")
    @classmethod
    def world(cls, importable: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
        module = importlib.import_module("oneiric_example_plugin.cache")
        clock, directory, numbers = Clock(), tmp_path_factory.mktemp("caches"), itertools.count()

        @asynccontextmanager
        async def opened() -> AsyncIterator[Any]:
            yield module.FileCache(str(directory / str(next(numbers))), clock=clock)

        return World(opened, clock.advance)

    @pytest.mark.anyio
    async def test_is_unhealthy_when_its_directory_is_gone(self, world: World) -> None:
        async with world.open() as cache:
            cache._directory.rmdir()
            assert await cache.health() is False

    @pytest.mark.anyio
    async def test_leaves_no_unfinished_file_when_the_entry_cannot_be_put_in_place(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with world.open() as cache:
            cache._path("blocked").mkdir()
            with pytest.raises(IsADirectoryError):
                await cache.set("blocked", "value")
            assert list(cache._directory.glob("*.part")) == []
