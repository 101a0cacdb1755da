"""What it costs to take a signed manifest: to verify and register it, to find it unchanged, and what the loop feels.

``python -m benchmarks.delivering`` is run as a child: to serve a directory, and to have its own peak memory measured.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

import msgspec
import yaml

from benchmarks.measure import Budget, Claim, Row, Sample, measure
from examples.publisher.press import new_key, public_key
from examples.publisher.serve import Publisher
from oneiric import Runtime
from oneiric.core.config import RemoteSettings
from oneiric.core.keys import parse_key
from oneiric.core.registry import Registry
from oneiric.core.trust import TrustPolicy, verify_manifest
from oneiric.remote.fetch import Fetched, Fetcher
from oneiric.remote.offers import offers
from oneiric.remote.signing import Signer, pack, sign
from oneiric.runtime.delivery import Delivery
from oneiric.testing import bare_settings

ROOT: Final = Path(__file__).parents[1]
MODULE: Final = "shop.parts"
URL: Final = "https://manifests.example.com/oneiric/manifest.json"
AT_MOST: Final = {10_000: 0.150, 100_000: 1.5}
UNCHANGED_AT_MOST: Final = 0.010
LAG_AT_MOST: Final = 0.025
GROWTH_BYTES: Final = 2**20
TICK: Final = 0.001
DEADLINE: Final = 120.0
MAX_BYTES: Final = 1 << 30


async def verifying(budget: Budget) -> list[Row]:
    """``verify_manifest`` and ``Registry.with_source`` against ``json.loads`` of the same bytes."""
    signer, key = _new_signer()
    contenders: dict[str, Sample] = {}
    claims: list[Claim] = []
    peaks: dict[int, float] = {}
    for size in budget.sizes(1_000, 10_000, 100_000):
        content = packed(size, signer)
        peaks[size] = _peak(content, key)
        loads, takes = f"json.loads, N={size:,}", f"verify and register, N={size:,}"
        contenders[loads] = _timed(partial(json.loads, content))
        contenders[takes] = _timed(partial(take, content, key))
        claims.append(Claim("verify and register", size, takes, loads))
    rows = await measure(contenders, claims, budget)
    rows = [replace(row, memory=peaks[row.size], median_target=AT_MOST.get(row.size)) for row in rows]
    return [*rows, *await _verifying_yaml(budget, signer, key)]


async def _verifying_yaml(budget: Budget, signer: Signer, key: str) -> list[Row]:
    contenders: dict[str, Sample] = {}
    claims: list[Claim] = []
    for size in sorted(budget.sizes(1_000, budget.largest // 20)):  # 10,000 are more than YAML may be
        as_json = packed(size, signer)
        as_yaml = yaml.safe_dump(json.loads(as_json), sort_keys=False).encode()
        loads, packs, takes = (
            f"{what}, N={size:,}" for what in ("yaml.CSafeLoader", "verify and register", "the same, YAML")
        )
        contenders |= {
            packs: _timed(partial(take, as_json, key)),
            loads: _timed(partial(yaml.load, as_yaml, yaml.CSafeLoader)),
            takes: _timed(partial(take, as_yaml, key)),
        }
        claims += [Claim("verify and register, YAML", size, takes, baseline) for baseline in (loads, packs)]
    return await measure(contenders, claims, replace(budget, rounds=min(budget.rounds, 3)))


async def refreshing(budget: Budget) -> list[Row]:
    """A refresh that finds nothing new against asking whether there is, and what a thousand of them leave behind."""
    size, (signer, key) = budget.sizes(10_000)[0], _new_signer()
    with _published(packed(size, signer)) as (directory, url):
        async with _delivering(url, key, directory) as delivery, Fetcher() as fetcher:
            await delivery.syncer.sync()
            asks, refreshes = "a GET answered 304", f"unchanged refresh, N={size:,}"
            contenders = {asks: await _asking(fetcher, url), refreshes: _refreshing(delivery)}
            (row,) = await measure(contenders, [Claim("unchanged refresh", size, refreshes, asks)], budget)
            rounds = budget.sizes(1_000)[0]
            growth, mean = await _growth(delivery, rounds)
    row = replace(row, median_target=UNCHANGED_AT_MOST)
    grown = Row("unchanged refreshes, growth", rounds, median=mean, p10=mean, rounds=1)
    return [row, replace(grown, memory=max(growth, 0.0), memory_target=GROWTH_BYTES)]


async def lagging(budget: Budget) -> list[Row]:
    """The longest wait of a ticker of 1 ms while a manifest is fetched, verified and registered; and of an idle one."""
    signer, key = _new_signer()

    async def idle() -> Sequence[float]:
        return [await _longest_wait(asyncio.sleep(0.3))]

    contenders: dict[str, Sample] = {"idle loop": idle}
    claims: list[Claim] = []
    with ExitStack() as stack:
        gc.collect()
        gc.freeze()  # as the daemon does
        stack.callback(gc.unfreeze)
        for size in budget.sizes(10_000, 100_000):
            directory, url = stack.enter_context(_published(packed(size, signer)))
            contenders[f"syncing loop, N={size:,}"] = _syncing(url, key, directory)
            claims.append(Claim("loop lag in a sync", size, f"syncing loop, N={size:,}", "idle loop"))
        rows = await measure(contenders, claims, budget)
    return [replace(row, median_target=LAG_AT_MOST) for row in rows]


def _syncing(url: str, key: str, directory: Path) -> Sample:
    async def sample() -> Sequence[float]:
        with TemporaryDirectory(dir=directory) as place:
            async with _delivering(url, key, Path(place)) as delivery:
                gc.collect()  # or it would wait for the sweeping up after the sample before it
                return [await _longest_wait(delivery.syncer.sync())]

    return sample


# What is measured


def packed(size: int, signer: Signer) -> bytes:
    """Return a signed manifest of so many entries, as ``manifest pack`` writes it."""
    document = {"source": "benchmarks", "entries": [_entry(number) for number in range(size)]}
    return pack(sign(document, signer, now=datetime.now(UTC), expires_in=timedelta(days=1), manifest_version=1))


def _entry(number: int) -> dict[str, Any]:
    return {
        "domain": "adapter",
        "key": f"part-{number}",
        "provider": "only",
        "factory": f"{MODULE}:Part",
        "priority": number % 10,
        "version": f"1.{number % 100}.0",
        "capabilities": ["kv", "ttl"],
        "metadata": {"description": f"The part with the number {number}", "pool": number % 7},
    }


def take(content: bytes, key: str) -> Registry:
    """Verify a manifest and return a registry of what it offers."""
    policy = TrustPolicy(keys=(parse_key(key),), allowed_factories=(MODULE,), max_manifest_bytes=MAX_BYTES)
    verified = verify_manifest(content, policy=policy, floor=None, now=datetime.now(UTC), url=URL)
    return Registry().with_source("remote", offers(verified.manifest, {}))


def _new_signer() -> tuple[Signer, str]:
    signer = new_key()
    return signer, public_key(signer)


def _timed(work: Callable[[], Any]) -> Sample:
    async def sample() -> Sequence[float]:
        gc.collect()
        begin = perf_counter()
        made = work()
        taken = perf_counter() - begin
        del made  # which takes time, too, but is not what is asked
        return [taken]

    return sample


@asynccontextmanager
async def _delivering(url: str, key: str, directory: Path) -> AsyncIterator[Delivery]:
    bare = bare_settings()
    remote = RemoteSettings(
        manifest_url=url, public_key=key, allowed_factories=(MODULE,), max_manifest_bytes=MAX_BYTES, timeout=DEADLINE
    )
    places = {"cache_dir": str(directory / "cache"), "state_dir": str(directory / "state")}
    settings = msgspec.structs.replace(bare, app=msgspec.structs.replace(bare.app, remote=remote, **places))
    async with Runtime.open(settings, environ={}, sink=lambda *_: None) as runtime:
        yield Delivery(runtime, environ={})


async def _asking(fetcher: Fetcher, url: str) -> Sample:
    first = await fetcher.fetch(url, limit_bytes=MAX_BYTES, deadline=DEADLINE)
    etag = first.etag if isinstance(first, Fetched) else None

    async def sample() -> Sequence[float]:
        begin = perf_counter()
        answer = await fetcher.fetch(url, limit_bytes=MAX_BYTES, deadline=DEADLINE, etag=etag)
        taken = perf_counter() - begin
        if answer == first:
            raise AssertionError("measured a transfer instead of a question")
        return [taken]

    return sample


def _refreshing(delivery: Delivery) -> Sample:
    async def sample() -> Sequence[float]:
        begin = perf_counter()
        report = await delivery.syncer.sync()
        taken = perf_counter() - begin
        if report.outcome != "unchanged":
            raise AssertionError(f"measured a refresh that changed something: {report}")
        return [taken]

    return sample


async def _growth(delivery: Delivery, rounds: int) -> tuple[float, float]:
    """Return by how many bytes this process grew in so many refreshes, and the seconds that one took."""
    gc.collect()
    before, begin = _resident_bytes(), perf_counter()
    for _ in range(rounds):
        await delivery.syncer.sync()
    taken = perf_counter() - begin
    gc.collect()
    return float(_resident_bytes() - before), taken / rounds


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _longest_wait(work: Coroutine[Any, Any, Any]) -> float:
    """Return the longest time between two ticks of 1 ms while *work* is done."""
    longest, last = 0.0, perf_counter()
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.sleep(TICK)
        now = perf_counter()
        longest, last = max(longest, now - last), now
    await task
    return longest


# Children


@contextmanager
def _published(content: bytes) -> Iterator[tuple[Path, str]]:
    """Serve a manifest from another process; give a directory that is removed afterwards, and the manifest's URL."""
    with TemporaryDirectory(prefix="oneiric-benchmarks-") as text:
        directory = Path(text)
        (directory / "served").mkdir()
        (directory / "served" / "manifest.json").write_bytes(content)
        with _child("serve", str(directory / "served")) as server:
            assert server.stdout is not None
            yield directory, server.stdout.readline().strip()
            server.communicate(timeout=DEADLINE)  # it serves until its stdin ends


def _peak(content: bytes, key: str) -> float:
    """Return by how much a process that takes a manifest grows at its peak."""
    with TemporaryDirectory(prefix="oneiric-benchmarks-") as directory:
        file = Path(directory, "manifest.json")
        file.write_bytes(content)
        with _child("take", str(file), key) as taker:
            said, _ = taker.communicate(timeout=DEADLINE)
    return float(said)


def _child(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.delivering", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _peak_bytes() -> int:
    """Return the most memory that this process had; ``getrusage`` would count that of who started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main(what: str, path: str, key: str = "") -> None:
    """Do what a child is for."""
    if what == "serve":
        with Publisher(Path(path), tls=False) as publisher:
            print(publisher.url, flush=True)
            sys.stdin.read()
    else:
        before = _peak_bytes()
        taken = take(Path(path).read_bytes(), key)
        print(_peak_bytes() - before)
        del taken


if __name__ == "__main__":
    main(*sys.argv[1:])
