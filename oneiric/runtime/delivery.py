"""Remote delivery as the daemon has it: the syncer wired to a runtime, and the loop that keeps it up to date."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio

from oneiric.config.secrets import resolve_references
from oneiric.core.breaker import BreakerState
from oneiric.core.candidate import Candidate
from oneiric.core.config import AppSettings
from oneiric.errors import OneiricError
from oneiric.observability.logs import Emit
from oneiric.remote.cache import Cache
from oneiric.remote.ledger import Ledger, Record
from oneiric.remote.offers import SOURCE
from oneiric.remote.policy import trust_policy
from oneiric.remote.sync import Publish, Syncer
from oneiric.runtime.runtime import Runtime

_JITTER: Final = 0.1


def syncer(
    settings: Callable[[], AppSettings],
    *,
    emit: Emit,
    environ: Mapping[str, str],
    publish: Publish | None = None,
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
    )


class Facts(NamedTuple):
    """What is known of the manifest's source: what the ledger keeps, the breaker, and what lies in the cache."""

    record: Record
    breaker: BreakerState
    quarantined: int
    cache_bytes: int


def facts(syncer: Syncer, app: AppSettings) -> Facts:
    """Return what is known; blocks while it looks at the disk. Raises TrustError when the ledger cannot be read."""
    record = Ledger(Path(app.state_dir)).load()
    cache = Cache(Path(app.cache_dir))
    state = syncer.breaker(record).state(datetime.now(UTC))
    return Facts(record, state, len(cache.quarantined()), cache.size_bytes())


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
        """Begin the next round now: the settings changed."""
        self._woken.set()
        self._woken = anyio.Event()

    async def restore(self) -> None:
        """Offer what the cache has; what is no longer acceptable is reported and not offered."""
        try:
            report = await self.syncer.restore()
        except (OneiricError, OSError) as error:
            reason = getattr(error, "reason", "disk")
            self._runtime.emit("remote-restore-failed", source=SOURCE, error=str(error), reason=reason)
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
            remote = self._runtime.settings.app.remote
            if remote.manifest_url is not None:
                with suppress(OneiricError):  # reported by the syncer
                    await self.syncer.sync()
            spread = 1 + _JITTER * (2 * random.random() - 1)  # noqa: S311 - spreads load, hides nothing
            with anyio.move_on_after(remote.refresh_interval * spread):
                await self._woken.wait()
