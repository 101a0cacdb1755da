"""Remote delivery as the daemon has it: the syncer wired to a runtime, and the loop that keeps it up to date."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio

from oneiric.config.secrets import resolve_references
from oneiric.core.breaker import BreakerState
from oneiric.core.candidate import Candidate
from oneiric.core.config import AppSettings
from oneiric.observability.logs import Emit
from oneiric.remote.authorities import Authorities
from oneiric.remote.cache import Cache
from oneiric.remote.collect import Progress
from oneiric.remote.fetch import Fetcher
from oneiric.remote.ledger import Ledger, Record
from oneiric.remote.offers import SOURCE
from oneiric.remote.policy import trust_policy
from oneiric.remote.reports import reason_of, words_of
from oneiric.remote.sync import Publish, Syncer
from oneiric.runtime.runtime import Runtime

_JITTER: Final = 0.1


def syncer(
    settings: Callable[[], AppSettings],
    *,
    emit: Emit,
    environ: Mapping[str, str],
    publish: Publish | None = None,
    progress: Progress = lambda _here, _all: None,
) -> Syncer:
    """Return a syncer on the cache and the state directory that the settings name when it is made."""
    app = settings()

    def token() -> str | None:
        found: str | None = resolve_references(settings().remote.token, environ=environ, base=Path())
        return None if found is None else str(found)

    return Syncer(
        settings=lambda: settings().remote,
        policy=trust_policy,
        cache=Cache(Path(app.cache_dir)),
        ledger=Ledger(Path(app.state_dir)),
        emit=emit,
        publish=publish,
        token=token,
        fetcher=partial(Fetcher, ssl_context=Authorities()),
        progress=progress,
    )


class Facts(NamedTuple):
    """What is known of the manifest's source: what the ledger keeps, the breaker, and what lies in the cache.

    ``quarantined`` counts the evidence put aside since the last synchronisation that succeeded: later ones are right.
    """

    record: Record
    breaker: BreakerState
    quarantined: int
    cache_bytes: int


def facts(syncer: Syncer, app: AppSettings) -> Facts:
    """Return what is known; blocks while it looks at the disk. Raises TrustError when the ledger cannot be read."""
    record = Ledger(Path(app.state_dir)).load()
    cache = Cache(Path(app.cache_dir))
    state = syncer.breaker(record).state(datetime.now(UTC))
    return Facts(record, state, len(cache.quarantined(since=record.last_success_at)), cache.size_bytes())


class Delivery:
    """Keeps what the manifest offers in the registry of *runtime*."""

    def __init__(self, runtime: Runtime, *, environ: Mapping[str, str]) -> None:
        self._runtime = runtime
        self._woken = anyio.Event()
        self.syncer = syncer(lambda: runtime.settings.app, emit=runtime.emit, environ=environ, publish=self._publish)

    async def _publish(self, candidates: tuple[Candidate[Any], ...]) -> None:
        await self._runtime.offer(SOURCE, candidates)

    def facts(self) -> Facts:
        """Return what is known of the manifest's source; blocks while it looks at the disk."""
        return facts(self.syncer, self._runtime.settings.app)

    def wake(self) -> None:
        """Begin the next round now, or after the one under way: the settings changed."""
        self._woken.set()

    async def restore(self) -> None:
        """Offer what the cache has; what is no longer acceptable is reported and not offered."""
        try:
            report = await self.syncer.restore()
        except Exception as error:  # the daemon starts, whatever it finds in its cache
            self._runtime.emit("remote-restore-failed", source=SOURCE, error=words_of(error), reason=reason_of(error))
            return
        if report is not None:
            self._runtime.emit(
                "remote-restored",
                source=SOURCE,
                manifest=report.source,
                manifest_version=report.manifest_version,
                entries=report.entries,
                error="; ".join(report.warnings),
            )

    async def run(self) -> None:
        """Synchronise for ever; every failure is reported and waited out."""
        while True:
            self._woken = anyio.Event()  # whatever wakes us from here on wants another round
            asked = await self._round()
            spread = 1 + _JITTER * (2 * random.random() - 1)  # noqa: S311 - spreads load, hides nothing
            with anyio.move_on_after(max(self._runtime.settings.app.remote.refresh_interval * spread, asked)):
                await self._woken.wait()

    async def _round(self) -> float:
        """Synchronise, if there is where from; return the seconds for which the server asks not to be asked again."""
        if self._runtime.settings.app.remote.manifest_url is None:
            return 0.0
        try:
            await self.syncer.sync()
        except Exception as error:  # reported by the syncer
            return getattr(error, "retry_after", None) or 0.0
        return 0.0
