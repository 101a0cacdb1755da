"""Where a manifest is looked for: in one place, then in its mirrors, until one offers what may be accepted.

A mirror is believed no more than the first place, and whatever it answers can do no more harm than its silence: after a
manifest that is refused, and after one that is no news, the others are asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import NamedTuple

from anyio import to_thread

from oneiric.core.config import RemoteSettings
from oneiric.core.manifest import Manifest
from oneiric.core.trust import Floor, TrustPolicy, VerifiedManifest, require_fresh
from oneiric.errors import FetchError, ManifestError
from oneiric.remote.cache import Cache
from oneiric.remote.engines import open_source
from oneiric.remote.fetch import Fetched, Fetcher, NotModified
from oneiric.remote.pinned import is_tuf
from oneiric.remote.reports import SyncReport
from oneiric.remote.source import Source, Token, policy_for, verify
from oneiric.remote.telling import Teller
from oneiric.remote.urls import printable


class InForce(NamedTuple):
    """What this process published last, without its entries; where it came from, and what the cache looked like then.

    ``cached`` is None where the cache did not have all of it.
    """

    head: Manifest
    digest: str
    policy: TrustPolicy
    floor: Floor
    report: SyncReport
    place: str
    etag: str | None
    cached: Mapping[str, object] | None


class Answer(NamedTuple):
    """What a place offers and may be accepted; ``verified`` is None where it is what is in force."""

    url: str
    source: Source
    found: Fetched | NotModified
    verified: VerifiedManifest | None

    def is_news(self, floor: Floor | None) -> bool:
        """Say whether it is not what was accepted last."""
        return self.verified is not None and (floor is None or self.verified.floor.digest != floor.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """How one round asks a place, and what makes an answer acceptable.

    Args:
        floor: what was accepted last.
        current: what is in force, if it is also what was accepted last, and cached.
        patiently: calls again while a failure may pass.
    """

    fetcher: Fetcher
    settings: RemoteSettings
    policy: TrustPolicy
    floor: Floor | None
    current: InForce | None
    cache: Cache
    token: Token
    now: Callable[[], datetime]
    patiently: Callable[[Callable[[], Awaitable[Fetched | NotModified]]], Awaitable[Fetched | NotModified]]
    teller: Teller

    async def answers(self, urls: Iterable[str]) -> AsyncGenerator[Answer, None]:
        """Yield what may be accepted, in the order of *urls*; what a mirror has and is no news comes last.

        The next place is asked only when the next answer is.
        """
        no_news: list[Answer] = []
        for number, url in enumerate(urls):
            try:
                answer = await self._ask(url)
            except (FetchError, ManifestError) as error:
                self.teller.refused(url, error)
                continue
            if number and not answer.is_news(self.floor):
                no_news.append(answer)
            else:
                yield answer
        for answer in no_news:
            yield answer

    async def _ask(self, url: str) -> Answer:
        """Return what is at *url*; raises FetchError, and ManifestError or TrustError when it is refused."""
        opened = partial(open_source, url, self.fetcher, settings=self.settings, cache=self.cache, token=self.token)
        source, current = await to_thread.run_sync(opened), self.current
        etag = current.etag if current is not None and current.place == url else None
        found = await self.patiently(partial(source.manifest, url, etag=etag))
        if current is not None and await _is_current(found, current):
            require_fresh(current.head, policy_for(found, self.policy), floor=current.floor, now=self.now())
            return Answer(url, source, found, None)
        if not isinstance(found, Fetched):
            raise FetchError(f"http: {printable(url)}: 304 without being asked for it", reason="http")
        judge = partial(verify, found, place=url, policy=self.policy, floor=self.floor, now=self.now())
        verified = await to_thread.run_sync(judge)
        self.teller.signed(verified.key_ids)
        return Answer(url, source, found, verified)


def places_of(url: str, settings: RemoteSettings) -> tuple[str, ...]:
    """Return where to look for the manifest at *url*: there, and in its mirrors if it is the configured one."""
    mirrors = settings.mirrors if url == settings.manifest_url else ()
    return tuple(dict.fromkeys((url, *(mirror for mirror in mirrors if is_tuf(mirror) == is_tuf(url)))))


async def _is_current(found: Fetched | NotModified, current: InForce) -> bool:
    if isinstance(found, NotModified):
        return True
    digest = await to_thread.run_sync(lambda: hashlib.sha256(found.content).hexdigest())
    return digest == current.digest
