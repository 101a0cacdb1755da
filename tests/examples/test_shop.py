"""The shop that ``make run`` opens: delivered to and swapped under load, restarted, closed, and poor."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oneiric.api.client import RemoteError
from tests.adapters.redis_server import INSTALL, free_port, require_program
from tests.examples.shop import SHOP, OpenShop, copy_shop, load_module, open_shop

load = load_module()
SWAPS = [
    ("service", "pricing", "sale"),
    ("adapter", "cache", "memory"),
    ("service", "front", "fresh"),
    ("service", "pricing", "regular"),
    ("adapter", "cache", "redis"),
    ("service", "front", "http"),
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenShop]:
    """A shop with a Redis server and a publisher; a test that swaps leaves every slot to whom it was."""
    require_program("redis-server", INSTALL)
    with open_shop(copy_shop(tmp_path_factory.mktemp("open"))) as opened:
        yield opened


@pytest.fixture
def bare_path(tmp_path: Path) -> dict[str, str]:
    """An environment in which no program is found: neither redis-server nor apt-get."""
    (tmp_path / "bin").mkdir()
    return {"PATH": str(tmp_path / "bin")}


def swap_until(done: Callable[[], bool], shop: OpenShop, swaps: list[tuple[str, str, str]]) -> Counter[str]:
    """Go through *swaps* until *done*, and at least once to the end; count those that changed something, by key."""
    changed: Counter[str] = Counter()
    for number in itertools.count():
        if number % len(swaps) == 0 and number and done():
            return changed
        domain, key, provider = swaps[number % len(swaps)]
        changed[key] += shop.swap(domain, key, provider)["changed"]
    raise AssertionError


# Open


def test_front_page_says_what_to_ask(shop: OpenShop) -> None:
    assert f"curl {shop.url}/price/tea" in shop.get("/")


def test_redis_is_the_cache_where_there_is_a_server(shop: OpenShop) -> None:
    assert shop.explain("adapter", "cache").startswith("adapter/cache: redis (active)")


# Delivered to


def test_welcome_explains_the_prices_that_came_from_a_signed_manifest(shop: OpenShop) -> None:
    welcome = shop.output.partition("The shop is open")[2]
    assert "service/pricing: member (active)\n" in welcome
    assert re.search(r"active +member +priority 20 > 10; from remote\n", welcome)
    assert re.search(r"\S+/python publish.py --percent 25 +# version 2: ", welcome)


def test_manifest_that_was_changed_after_signing_changes_nothing_and_shows_in_remote_status(shop: OpenShop) -> None:
    manifest = shop.directory / ".shop" / "served" / "manifest.json"
    right = manifest.read_bytes()
    before = shop.explain("service", "pricing")
    manifest.write_bytes(right.replace(b'"priority":20', b'"priority":99'))
    with pytest.raises(RemoteError, match="signature: "):
        shop.client.post("/v1/remote/sync")
    status, after = shop.client.get("/v1/remote"), shop.explain("service", "pricing")
    manifest.write_bytes(right)
    shop.client.post("/v1/remote/sync", {"force": True})
    assert (after, status["last_error"].startswith("signature: ")) == (before, True)


async def loaded_and_delivered(shop: OpenShop) -> tuple[Any, str]:
    loading = asyncio.create_task(load.run(shop.url, seconds=5, workers=20, tell=False))
    version = await asyncio.to_thread(shop.publish, 25)
    return await loading, version


def test_no_request_fails_while_the_next_version_of_the_prices_is_delivered(shop: OpenShop) -> None:
    shop.unpin("service", "pricing")
    before = json.loads(shop.get("/price/before"))["priced_by"]
    tally, version = asyncio.run(loaded_and_delivered(shop))
    assert tally.failures == Counter()
    assert {by for by, _ in tally.answers} == {before, f"member {version}"}
    assert tally.answers.total() == tally.requests


def test_publishing_where_no_shop_was_ever_open_says_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "publish.py"], cwd=copy_shop(tmp_path), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: the shop was never open here\ntry: make run\n"


# Under load


async def loaded_and_swapped(shop: OpenShop) -> tuple[Any, Counter[str]]:
    loading = asyncio.create_task(load.run(shop.url, seconds=3, workers=20, tell=False))
    changed = await asyncio.to_thread(swap_until, loading.done, shop, SWAPS)
    return await loading, changed


def test_no_request_fails_while_cache_pricing_and_front_are_swapped(shop: OpenShop) -> None:
    tally, changed = asyncio.run(loaded_and_swapped(shop))
    assert tally.failures == Counter()
    assert changed.keys() == {"pricing", "cache", "front"}
    assert {by for by, _ in tally.answers} >= {"regular", "sale"}
    assert {cache for _, cache in tally.answers} == {"redis", "memory"}
    assert tally.answers.total() == tally.requests


async def visited_and_swapped(shop: OpenShop) -> tuple[Counter[str], Counter[str]]:
    """Swap the front 10 times while ten customers come, ask once and leave, each time by a new connection."""
    answers: Counter[str] = Counter()
    host, _, port = shop.url.removeprefix("http://").partition(":")
    swapping = asyncio.create_task(asyncio.to_thread(_swap_fronts, shop))

    async def visit() -> None:
        while not swapping.done():
            connection = load.Connection(host, int(port))
            try:
                await connection.get("/price/tea", load.Tally())
                answers["answered"] += 1
            except (OSError, ValueError) as error:
                answers[repr(error)] += 1
            finally:
                connection.close()

    async with asyncio.TaskGroup() as visitors:
        for _ in range(10):
            visitors.create_task(visit())
    return answers, await swapping


def _swap_fronts(shop: OpenShop) -> Counter[str]:
    rounds = iter(range(5))
    return swap_until(
        lambda: next(rounds, None) is None, shop, [("service", "front", "fresh"), ("service", "front", "http")]
    )


def test_no_new_connection_is_lost_between_two_fronts(shop: OpenShop) -> None:
    answers, changed = asyncio.run(visited_and_swapped(shop))
    assert answers.keys() == {"answered"}
    assert changed["front"] >= 10


@pytest.mark.anyio
async def test_load_counts_a_shop_that_is_not_there() -> None:
    tally = await load.run(f"http://127.0.0.1:{free_port()}", seconds=0.1, workers=2, tell=False)
    assert tally.failures.total() == tally.requests > 0


# Restarted


def test_swap_is_a_pin_that_outlives_the_daemon_and_names_who_and_when(
    tmp_path: Path, bare_path: dict[str, str]
) -> None:
    directory = copy_shop(tmp_path)
    with open_shop(directory, bare_path) as first:
        first.swap("service", "pricing", "sale")
    with open_shop(directory, bare_path) as second:
        answer, text = json.loads(second.get("/price/coffee")), second.explain("service", "pricing")
    assert answer["priced_by"] == "sale"
    who = re.escape(f"(uid {os.getuid()})")
    assert re.search(rf"selection: pin names sale \(by \S+ {who} since \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ\)", text)


# Closed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_closing_it_ends_all_that_it_started_with_exit_0(number: signal.Signals, tmp_path: Path) -> None:
    require_program("redis-server", INSTALL)
    with open_shop(copy_shop(tmp_path)) as opened:
        started = opened.children()
        code = opened.close(number)
    known = {"redis-server": "redis", "orchestrate": "daemon", "publish.py": "publisher"}
    assert sorted(what for command in started.values() for name, what in known.items() if name in command) == [
        "daemon",
        "publisher",
        "redis",
    ]
    assert len(started) == len(known)
    assert (code, [pid for pid in started if Path(f"/proc/{pid}").exists()]) == (0, [])
    assert opened.output.rstrip().splitlines()[-1].split()[2:3] == ["daemon-stopped"]


def test_second_shop_in_one_directory_says_why_not_and_leaves_the_first_its_keys(
    tmp_path: Path, bare_path: dict[str, str]
) -> None:
    directory = copy_shop(tmp_path)
    with open_shop(directory, bare_path) as first:
        key = (directory / ".shop" / "publisher.pub").read_text()
        second = OpenShop(directory, bare_path)
        code = second.process.wait(20)
        second.close()
        assert first.get("/price/tea")
        assert first.client.post("/v1/remote/sync")["outcome"] == "unchanged"
    assert (directory / ".shop" / "publisher.pub").read_text() == key
    assert code == 1
    assert "error[daemon]: another daemon (pid " in second.output


# Without Redis, and without a publisher


@pytest.fixture
def poor(tmp_path: Path, bare_path: dict[str, str]) -> Iterator[OpenShop]:
    """A shop where no program is found, nor what a publisher needs to make keys."""
    lacking = tmp_path / "lacking" / "cryptography.py"
    lacking.parent.mkdir()
    lacking.write_text("raise ImportError('there is no cryptography')\n")
    with open_shop(copy_shop(tmp_path), {**bare_path, "PYTHONPATH": str(lacking.parent)}) as opened:
        yield opened


def test_poor_shop_answers_as_the_readme_shows_and_says_what_it_lacks(poor: OpenShop) -> None:
    shown = re.search(r'^\{"item":"tea".*\}$', (SHOP / "README.md").read_text(), re.MULTILINE)
    assert shown is not None
    assert json.loads(poor.get("/price/tea")) == json.loads(shown[0])
    assert "no redis-server here: the shop goes on with the memory cache" in poor.output
    reason = "(ImportError: there is no cryptography)"
    assert f"no publisher here: the shop goes on without member prices {reason}" in poor.output
    assert "publish.py" not in poor.output.partition("The shop is open")[2]
    explained = poor.explain("adapter", "cache").splitlines()
    rejected = [line for line in explained if line.split()[:2] == ["rejected", "redis"]]
    assert all("environment variable SHOP_REDIS_URL is not set" in line for line in rejected)
    assert any("try: apt-get install redis-server" in line for line in rejected)
