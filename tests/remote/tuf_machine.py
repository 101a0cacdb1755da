"""A machine that takes delivery from a TUF repository: cache, state directory, settings, and what it was offered."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from oneiric.core.candidate import Candidate, Deferred
from oneiric.core.config import RemoteSettings
from oneiric.errors import OneiricError
from oneiric.remote.cache import Cache
from oneiric.remote.fetch import Fetcher
from oneiric.remote.ledger import Ledger
from oneiric.remote.policy import trust_policy
from oneiric.remote.sync import Syncer
from tests.harness.servers import Server, believes_nobody
from tests.remote.tuf_publisher import Repository


@dataclass
class Client:
    """A machine with a cache, a state directory and settings; restarted by ``syncer()``."""

    home: Path
    settings: RemoteSettings
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    offered: tuple[Candidate[Any], ...] | None = None

    def syncer(self) -> Syncer:
        return Syncer(
            settings=lambda: self.settings,
            policy=trust_policy,
            cache=Cache(self.home / "cache"),
            ledger=Ledger(self.home / "state"),
            emit=lambda event, **fields: self.events.append((event, fields)),
            publish=self._publish,
            fetcher=partial(Fetcher, ssl_context=believes_nobody()),
            now=lambda: self.now,
            chance=lambda: 0.0,
        )

    async def _publish(self, candidates: tuple[Candidate[Any], ...]) -> None:
        self.offered = candidates

    def built(self) -> Any:
        """Return what the only candidate builds."""
        assert self.offered is not None
        (candidate,) = self.offered
        assert isinstance(candidate.factory, Deferred)
        return candidate.factory.find()()

    async def refused(self) -> OneiricError:
        """Synchronise, which must fail and change nothing that is offered; return why."""
        before = self.offered
        with pytest.raises(OneiricError) as caught:
            await self.syncer().sync()
        assert self.offered is before
        return caught.value

    def named(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.events if name == event]

    def set(self, **changed: Any) -> None:
        given = {name: getattr(self.settings, name) for name in RemoteSettings.__struct_fields__}
        self.settings = RemoteSettings(**{**given, **changed})


def machine(home: Path, repository: Repository, server: Server) -> Client:
    """Return a machine that pins the first root of *repository*, which *server* serves."""
    root = home / "root.json"
    root.write_bytes(repository.pinned)
    url = f"tuf+{server.url('/repo/')}"
    return Client(home, RemoteSettings(manifest_url=url, tuf_root=str(root), timeout=20.0))


def asked(server: Server) -> list[str]:
    """Return the paths below the repository that *server* was asked for."""
    return [request.target.removeprefix("/repo/") for request in server.requests]
