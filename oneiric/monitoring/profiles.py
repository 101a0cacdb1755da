"""How long things take: the same rules for production, and for drills that nobody wants to wait for."""

from __future__ import annotations

from typing import Final, NamedTuple


class Profile(NamedTuple):
    """Durations, as Prometheus writes them. Nothing else differs between profiles.

    ``interval`` is how often targets are scraped and rules evaluated, ``window`` what ratios look back on, ``burn`` the
    long and short windows of the error budget with how long each pair must hold, ``holds`` how long a condition must
    hold before an alert fires, by how patient it is. The last ones are in seconds.
    """

    name: str
    interval: str
    window: str
    burn: tuple[tuple[str, str, str], ...]
    holds: dict[str, str]
    growth: str
    stale: int
    expiring: int
    restarted: int
    group_wait: str
    group_interval: str
    repeat_interval: str


PROD: Final = Profile(
    name="prod",
    interval="15s",
    window="5m",
    burn=(("1h", "5m", "2m"), ("6h", "30m", "15m"), ("1d", "2h", "1h"), ("3d", "6h", "3h")),
    holds={"at once": "0s", "soon": "30s", "patient": "1m", "lasting": "2m"},
    growth="30m",
    stale=900,
    expiring=259_200,
    restarted=300,
    group_wait="10s",
    group_interval="1m",
    repeat_interval="4h",
)
DRILL: Final = Profile(
    name="drill",
    interval="1s",
    window="10s",
    burn=(("40s", "10s", "2s"), ("60s", "15s", "3s"), ("80s", "20s", "4s"), ("100s", "25s", "5s")),
    holds={"at once": "0s", "soon": "1s", "patient": "2s", "lasting": "2s"},
    growth="10s",
    stale=15,
    expiring=3600,
    restarted=10,
    group_wait="0s",
    group_interval="1s",
    repeat_interval="1h",
)
PROFILES: Final = {profile.name: profile for profile in (PROD, DRILL)}
