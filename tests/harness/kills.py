"""A daemon killed over and over, at any instant, and what each next start makes of what it finds."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from oneiric.errors import DaemonUnreachableError
from tests.harness.daemon import Daemon
from tests.harness.hazards import CACHE, swap_to

PROVIDERS = ("memory", "redis")
OURS = {"lock", "oneiric.sock", "state.db", "state.db-journal"}
KILLS_DURING_START = 0.2  # of all kills
LONGEST_LIFE = 0.25  # seconds that a daemon serves before it is killed

Remembered = tuple[str, str]  # the pinned provider or "", the state


class Tally(NamedTuple):
    """What a series of kills came to."""

    kills: Counter[str]
    acknowledged: int
    history_rows: int
    wrong: list[str]
    seconds: float

    def __str__(self) -> str:
        when = ", ".join(f"{number} {moment}" for moment, number in sorted(self.kills.items()))
        return (
            f"{self.kills.total():,} kills ({when}), {self.acknowledged:,} changes acknowledged, "
            f"{self.history_rows:,} rows of history, {len(self.wrong)} inconsistencies, {self.seconds:.1f} s"
        )


class Killing:
    """Kills the daemon of *place*, and knows what its next start may remember.

    Whatever was acknowledged is remembered; what was asked for and not acknowledged when the daemon was killed may be.
    """

    def __init__(self, place: Path, seed: int) -> None:
        self._place = place
        self._random = random.Random(seed)
        self._may_be: set[Remembered] = {("", "ready")}
        self._now: Remembered = ("", "ready")
        self._rows: dict[int, tuple[Any, ...]] = {}
        self._kills: Counter[str] = Counter()
        self._acknowledged = 0
        self._wrong: list[str] = []
        self._starting = 0.6

    def run(self, kills: int) -> Tally:
        """Start and kill the daemon *kills* times, then start it once more."""
        begun = time.monotonic()
        for _ in range(kills):
            self._live_and_die()
        last = Daemon(self._place)
        try:
            self._look(last.wait_ready())
        finally:
            last.stop()
        return Tally(self._kills, self._acknowledged, len(self._rows), self._wrong, time.monotonic() - begun)

    def _live_and_die(self) -> None:
        begun = time.monotonic()
        daemon = Daemon(self._place)
        try:
            if self._random.random() < KILLS_DURING_START:
                death = self._schedule(daemon, self._random.uniform(0, self._starting))
                daemon.process.wait(60)
                death.join()
                self._kills["while it started"] += 1
            else:
                self._look(daemon.wait_ready())
                self._starting = time.monotonic() - begun
                self._schedule(daemon, self._random.uniform(0, LONGEST_LIFE))
                self._kills[self._work(daemon)] += 1
        finally:
            daemon.stop(signal.SIGKILL)
        if odd := [line for line in daemon.lines[:-1] if not line.startswith("{")]:  # the last one may be cut off
            self._wrong.append(f"it said {odd}")

    def _schedule(self, daemon: Daemon, seconds: float) -> threading.Timer:
        timer = threading.Timer(seconds, daemon.process.kill)
        timer.start()
        return timer

    def _work(self, daemon: Daemon) -> str:
        """Ask for one change after another until the daemon is dead; return at what that was."""
        while True:
            path, body, then = self._change()
            self._may_be = {self._now, then}
            try:
                daemon.client.post(path, body)
            except DaemonUnreachableError as error:
                return "during a change" if "broke off" in str(error) or "without an answer" in str(error) else "idle"
            self._now, self._may_be = then, {then}
            self._acknowledged += 1

    def _change(self) -> tuple[str, dict[str, str], Remembered]:
        pinned, state = self._now
        if self._random.random() < 0.7:
            provider = self._random.choice(PROVIDERS)
            return "/v1/swap", swap_to(provider), (provider, state)
        if self._random.random() < 0.5:
            return "/v1/unpin", CACHE, ("", state)
        return (
            ("/v1/resume", CACHE, (pinned, "ready")) if state == "paused" else ("/v1/pause", CACHE, (pinned, "paused"))
        )

    def _look(self, daemon: Daemon) -> None:
        """Compare what the daemon remembers with what it may."""
        row = daemon.slot("adapter", "cache")
        found: Remembered = (row["pin"]["provider"] if row["pin"] else "", row["state"])
        if found not in self._may_be:
            self._wrong.append(f"found {found}, may be {self._may_be}")
        if row["provider"] != (found[0] or PROVIDERS[0]):
            self._wrong.append(f"{row['provider']} serves, pinned is {found[0] or 'nobody'}")
        self._now, self._may_be = found, {found}
        self._wrong += [json.dumps(event) for event in daemon.events if event["level"] == "error"]
        strange = {path.name for path in (self._place / ".oneiric_state").iterdir()} - OURS
        self._wrong += [f"left behind: {name}" for name in strange]
        self._compare_history()

    def _compare_history(self) -> None:
        """Read the history past the daemon: what was there is there, in order and without a gap."""
        with closing(sqlite3.connect(self._place / ".oneiric_state" / "state.db", timeout=20)) as database:
            rows = {row[0]: row for row in database.execute("SELECT * FROM swap ORDER BY id")}
            verdict = database.execute("PRAGMA integrity_check").fetchone()[0]
        if verdict != "ok":
            self._wrong.append(f"the database is damaged: {verdict}")
        if rows and list(rows) != list(range(min(rows), max(rows) + 1)):
            self._wrong.append("the history has gaps")
        kept = {number: row for number, row in self._rows.items() if number >= min(rows, default=0)}
        if lost := [number for number, row in kept.items() if rows.get(number) != row]:
            self._wrong.append(f"history rows changed or lost: {lost}")
        self._rows = rows
