"""A machine that takes delivery of signed manifests, and a web in memory that serves them or fails as told."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import anyio.lowlevel
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from oneiric.core.candidate import Candidate, Deferred
from oneiric.core.config import RemoteSettings
from oneiric.errors import FetchError
from oneiric.observability.logs import Reporter
from oneiric.remote.cache import Cache
from oneiric.remote.fetch import Fetched, NotModified
from oneiric.remote.ledger import Ledger, Record
from oneiric.remote.policy import trust_policy
from oneiric.remote.spaces import SPACES
from oneiric.remote.sync import Syncer
from oneiric.testing import Events
from tests.remote.publisher import ALICE, ALICE_KEY, NOW, URL, document, packed, signed
from tests.remote.wheels import digest, wheel

Fault = Callable[[], Awaitable[Any]]
"""Happens before an answer; what it returns, unless None, is answered instead."""


def part(number: int = 1) -> bytes:
    """Return a wheel whose part says *number*; the same bytes each time, although a wheel has the time in it."""
    return _part(number)


@cache
def _part(number: int) -> bytes:
    return wheel({"shop/__init__.py": "", "shop/cache.py": f"class Cache:\n    number = {number}\n"})


def offer(content: bytes | None = None, key: str = "cache", **changed: Any) -> dict[str, Any]:
    """Return an entry whose artifact is *content*, under a name of its own beside the manifest."""
    content = part() if content is None else content
    named = digest(content)
    fields = {
        "domain": "adapter",
        "key": key,
        "provider": "shop",
        "factory": "shop.cache:Cache",
        "uri": f"artifacts/{named[-8:]}.whl",
        "sha256": named,
        "length": len(content),
        "version": "1.0",
        **changed,
    }
    return {name: value for name, value in fields.items() if value is not None}


def failing(error: Exception) -> Fault:
    async def fail() -> None:
        raise error

    return fail


def unavailable(status: int = 503, **more: Any) -> Fault:
    """Answer a status, as the real fetcher reports it."""

    async def fail() -> None:
        raise FetchError(f"http: {status}", reason="http", status=status, **more)

    return fail


def answering(content: bytes) -> Fault:
    async def answer() -> bytes:
        return content

    return answer


@dataclass
class Web:
    """Files by their URLs, with tags; ``faults`` happen at a URL instead of an answer."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tags: list[str | None] = field(default_factory=list)
    tokens: dict[str, str | None] = field(default_factory=dict)

    def publish(
        self,
        *contents: bytes,
        version: int | None = 1,
        keys: tuple[Ed25519PrivateKey, ...] = (ALICE,),
        url: str = URL,
        entries: list[dict[str, Any]] | None = None,
        **changed: Any,
    ) -> bytes:
        """Publish *contents*, one slot for each, under a manifest signed with *keys*; return the manifest."""
        offered = entries or [offer(one, key=f"cache-{number}") for number, one in enumerate(contents)]
        for content in contents:
            self.files[urljoin(url, f"artifacts/{digest(content)[-8:]}.whl")] = content
        made = document(*offered, manifest_version=version, **changed)
        self.files[url] = packed(signed(made, *keys)) if keys else packed(made)
        return self.files[url]

    def names(self) -> list[str]:
        """Return the last parts of what was asked for, and forget it."""
        asked = [urlsplit(url).path.rpartition("/")[2] for url in self.asked]
        self.asked.clear()
        return asked

    def fetcher(self, **_how: Any) -> Any:
        """Return a fetcher of this web; handed to the syncer in place of the class."""
        return _Fetcher(self)


class _Fetcher:
    def __init__(self, web: Web) -> None:
        self._web = web

    async def __aenter__(self) -> _Fetcher:
        return self

    async def __aexit__(self, *_: object) -> None:
        await anyio.lowlevel.checkpoint()

    async def fetch(
        self,
        url: str,
        *,
        limit_bytes: int,
        deadline: float,
        etag: str | None = None,
        same_origin_as: str | None = None,
        token: str | None = None,
    ) -> Fetched | NotModified:
        web, url = self._web, urljoin(same_origin_as or "", url)
        web.asked.append(url)
        web.tags.append(etag)
        web.tokens[url] = token
        await anyio.lowlevel.checkpoint()
        fault = web.faults.get(url)
        content = (await fault() if fault is not None else None) or web.files.get(url)
        if content is None:
            raise FetchError(f"http: {url}: 404", reason="http", status=404)
        if isinstance(content, NotModified):
            return content
        if len(content) > limit_bytes:
            raise FetchError(f"size: {url}: more than {limit_bytes:,} bytes", reason="size")
        tag = f'"{digest(content)[:16]}"'
        return NotModified(url) if etag == tag else Fetched(content, tag, url)


@dataclass
class Consumer:
    """A cache, a state directory, settings and a clock; ``syncer()`` restarts it."""

    home: Path
    web: Web = field(default_factory=Web)
    settings: RemoteSettings = field(
        default_factory=lambda: RemoteSettings(manifest_url=URL, public_key=ALICE_KEY.raw.hex())
    )
    now: datetime = NOW
    events: Events = field(default_factory=Events)
    offered: tuple[Candidate[Any], ...] | None = None
    publications: int = 0
    chance: float = 0.0
    on_publish: Fault | None = None

    @property
    def cache(self) -> Cache:
        return Cache(self.home / "cache")

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.home / "state")

    @property
    def record(self) -> Record:
        return self.ledger.load()

    def syncer(self, **changed: Any) -> Syncer:
        """Return a syncer that remembers nothing but what is on the disk."""
        given: dict[str, Any] = {
            "settings": lambda: self.settings,
            "policy": trust_policy,
            "cache": self.cache,
            "ledger": self.ledger,
            "emit": Reporter(self.events),
            "publish": self._publish,
            "fetcher": self.web.fetcher,
            "now": lambda: self.now,
            "chance": lambda: self.chance,
        }
        return Syncer(**{**given, **changed})

    async def _publish(self, candidates: tuple[Candidate[Any], ...]) -> None:
        self.publications += 1
        if self.on_publish is not None:
            await self.on_publish()
        self.offered = candidates

    def set(self, **changed: Any) -> None:
        """Change settings."""
        self.settings = msgspec.structs.replace(self.settings, **changed)

    def later(self, **how: float) -> None:
        """Let time pass."""
        self.now += timedelta(**how)

    @property
    def numbers(self) -> dict[str, int]:
        """What is offered, built and asked for its number, by key; nobody else keeps it."""
        return {candidate.slot.key: number_of(candidate) for candidate in self.offered or ()}

    def files(self) -> dict[str, bytes]:
        """Return all files of the cache but its lock, by name."""
        root = self.home / "cache"
        found = (path for path in root.rglob("*") if path.is_file() and path.name != "lock")
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}

    def artifact(self, content: bytes) -> Path:
        """Return where the cache has an artifact."""
        return self.home / "cache" / "artifacts" / f"{digest(content)[:12]}-{digest(content)[-8:]}.whl"

    def reasons(self) -> list[str]:
        """Return why synchronisations failed, in order."""
        return [fields["reason"] for fields in self.events.named("remote-sync-error")]


def number_of(candidate: Candidate[Any]) -> int:
    """Build a candidate and return its number."""
    assert isinstance(candidate.factory, Deferred)
    number: int = candidate.factory.find()().number
    return number


@pytest.fixture
def consumer(tmp_path: Path) -> Iterator[Consumer]:
    """A machine that never synchronised; when it is gone, no artifact may be left open."""
    others = settled()  # what other tests in this process still hold
    consumer = Consumer(tmp_path)
    yield consumer
    consumer.offered = None
    consumer.web.faults.clear()  # an error that was raised holds on to all there was then
    assert [name for name in settled() if name not in others] == [], "an artifact was left open"


def settled() -> list[str]:
    """Return the artifacts that are open although nobody refers to them."""
    if open_artifacts():
        gc.collect()
    return open_artifacts()


def open_artifacts() -> list[str]:
    """Return the artifacts that are open in this process."""
    return [space.name for space in SPACES._spaces.values()]
