"""The last failed attempt to fill a slot, read: which scenario it belongs to, what is missing, which limit was low.

A failure counts while it is recent, or while the slot still says that it failed.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from types import MappingProxyType
from typing import Final, NamedTuple

from oneiric.core.domain import DOMAINS
from oneiric.core.words import plural
from oneiric.doctor.finding import Priority
from oneiric.doctor.vitals import Attempt, Happening, SlotVital, Vitals
from oneiric.doctor.wording import ago, cut, instant, quoted

RECENT: Final = 300.0
"""Seconds for which a failure counts: the window of the alerts."""
RESTART: Final = "systemctl restart oneiric || docker restart oneiric"
AFTER_SWAP: Final = "after the swap: "
"""How a slot's last error begins when the new instance serves and the old one made trouble."""

_BOUND: Final = re.compile(r"(?:no answer within|still held after) ([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?) s\b")
_MODULE: Final = re.compile(r"No module named '([A-Za-z_]\w*)((?:\.\w+)*)'", re.ASCII)
_FACTORY: Final = re.compile(r", factory ([A-Za-z_][\w.]*):([\w.]+)\)", re.ASCII)
_STUCK: Final = "earlier calls of it never ended"
_NETWORK: Final = ("connection: ", "dns: ", "tls: ", "timeout: ")
_DISK: Final = re.compile(r"no space left|disk quota|read-only file system|disk is full", re.IGNORECASE)
_DISTRIBUTIONS: Final = MappingProxyType(
    {
        "yaml": "PyYAML",
        "PIL": "pillow",
        "bs4": "beautifulsoup4",
        "cv2": "opencv-python-headless",
        "dateutil": "python-dateutil",
        "dotenv": "python-dotenv",
        "google": "google-cloud-core",
        "jwt": "PyJWT",
        "MySQLdb": "mysqlclient",
        "psycopg2": "psycopg2-binary",
        "sklearn": "scikit-learn",
    }
)
_STEPS: Final = (1, 2, 3, 5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600)


class Failure(NamedTuple):
    """The last attempt on a slot, which failed; ``number`` of them did recently, ``serving`` serves all the same.

    ``at`` is None and ``duration`` 0 when only the slot's last error tells of it.
    """

    slot: SlotVital
    provider: str
    reason: str
    error: str
    serving: str
    at: datetime | None = None
    duration: float = 0.0
    number: int = 0

    @property
    def bound(self) -> float | None:
        """How many seconds it was allowed, when that was too short."""
        return bound_of(self.error)

    @property
    def is_stuck(self) -> bool:
        """Whether the provider is not called any more, for earlier calls of it never ended."""
        return _STUCK in self.error

    @property
    def is_network(self) -> bool:
        """Whether something else, over the network, did not answer as it should."""
        return self.error.startswith(_NETWORK)

    @property
    def priority(self) -> Priority:
        """How grave it is: nobody serves, it happens now, it is still so, or nobody asks for it any more."""
        if not self.serving:
            return "P0"
        if self.number:
            return "P1"
        is_moot = self.serving == self.slot.winner != self.provider
        return "P3" if is_moot else "P2"

    @property
    def code(self) -> str:
        """The scenario of the runbook."""
        is_ill = self.reason in ("health-check", "timeout")
        if is_ill and not self.serving:
            return "1C"
        if self.bound is not None or self.is_stuck or self.reason == "timeout":
            return "2C"
        if self.reason == "factory" or "ImportError" in self.error:
            return "2A" if self.reason == "health-check" else "2B"
        return "2A"


def failure_of(vitals: Vitals, slot: SlotVital) -> Failure | None:
    """Return what failed last on *slot*, None when nothing that counts did."""
    last = slot.attempts[-1] if slot.attempts else None
    failed = last if last is not None and last.outcome != "success" else None
    complaint = "" if slot.last_error.startswith(AFTER_SWAP) else slot.last_error
    number = _recent(vitals, slot) if failed is not None else 0
    if not number and not complaint and slot.state != "failed":
        return None
    if failed is None:
        provider, _, error = complaint.partition(": ")
        known = (provider, error) if error else (slot.winner or slot.selected or "nobody", complaint or "no words")
        return Failure(slot, known[0], _reason_of(known[1]), known[1], slot.serving)
    serving = slot.serving or (failed.previous if vitals.process is None else "")
    reason = failed.reason or _reason_of(failed.error)
    return Failure(slot, failed.provider, reason, failed.error, serving, failed.at, failed.duration, number)


def _recent(vitals: Vitals, slot: SlotVital) -> int:
    """Return how many attempts failed recently, and after the last one that did not."""
    kept = 0
    for attempt in reversed(slot.attempts):
        if attempt.outcome == "success" or not is_recent(vitals, attempt.at):
            break
        kept += 1
    since = _last_success(slot)
    logged = sum(since is None or one.at > since for one in of_slot(vitals, slot, "swap-failed"))
    return max(kept, logged) if kept else 0


def _last_success(slot: SlotVital) -> datetime | None:
    return max((one.at for one in slot.attempts if one.outcome == "success"), default=None)


def _reason_of(error: str) -> str:
    """Return why an attempt failed, by its words."""
    if "_swap hook " in error:
        return "hook"
    if _STUCK in error or "still held after" in error:
        return "timeout"
    if ", factory " in error or "provider_settings" in error:
        return "timeout" if bound_of(error) is not None else "factory"
    return "factory" if error.startswith("ImportError") else "health-check"


def told(vitals: Vitals, failure: Failure) -> tuple[str, ...]:
    """Return what was seen of *failure*: how often, when, why, and who serves."""
    why = f"{failure.reason}: {cut(failure.error)}"
    noun = "failed swap" if failure.serving else "failed activation"
    if failure.number:
        line = f"{plural(failure.number, noun)} in the last 5 min, the last at {instant(failure.at)}: {why}"
    elif failure.at is not None:
        line = f"the last attempt failed at {ago(failure.at, vitals.at)}: {why}"
    else:
        line = f"the last error: {why}"
    serving = f"{failure.serving} still serves" if failure.serving else f"nobody serves {failure.slot}"
    return (f"{failure.provider}: {line}", serving)


# What the words of an error say


def bound_of(error: str) -> float | None:
    """Return the seconds after which a call was given up, None when none was."""
    found = _BOUND.search(error)
    return float(found[1]) if found else None


class Missing(NamedTuple):
    """A module that cannot be found, and the distribution that has it."""

    module: str
    distribution: str


def missing_in(error: str) -> Missing | None:
    """Return the module that *error* says is missing, None when it does not."""
    found = _MODULE.search(error)
    return None if found is None else Missing(found[1] + found[2], _DISTRIBUTIONS.get(found[1], found[1]))


def factory_in(error: str) -> tuple[str, str] | None:
    """Return the module and the attribute of the factory that *error* names."""
    found = _FACTORY.search(error)
    return None if found is None else (found[1], found[2])


def longer(bound: float, *seen: float) -> str:
    """Return how many seconds to allow in place of *bound*: twice as many, and half as many again as were *seen*."""
    wanted = max(2 * bound, *(1.5 * one for one in seen if math.isfinite(one)), 0.0)
    return f"{next((step for step in _STEPS if step >= wanted), wanted):g}"


def disk_of(vitals: Vitals, error: str) -> str:
    """Return the code of the finding about a disk that *error* follows from, or ""."""
    return "disk" if _DISK.search(error) and any(disk.error or disk.is_full for disk in vitals.disks) else ""


# Names as they are typed


def place(slot: SlotVital) -> str:
    """Return the options that name *slot*."""
    return f"--domain {quoted(slot.domain)} --key {quoted(slot.key)}"


def swap_to(slot: SlotVital, provider: str, *options: str) -> str:
    """Return the command that swaps *slot* to *provider*."""
    return " ".join(("oneiric swap", place(slot), f"--provider {quoted(provider)}", *options))


def settings_file(vitals: Vitals, slot: SlotVital) -> str:
    """Return the settings file of the slot's domain."""
    domain = DOMAINS.get(slot.domain)
    name = domain.settings_file if domain is not None else f"{slot.domain}s.yml"
    return f"{vitals.settings.rstrip('/')}/{name}"


# Events


def is_recent(vitals: Vitals, at: datetime) -> bool:
    """Say whether *at* is within the window in which failures count."""
    return (vitals.at - at).total_seconds() <= RECENT


def of_slot(vitals: Vitals, slot: SlotVital, *events: str) -> tuple[Happening, ...]:
    """Return which of *events* befell *slot* recently."""
    return tuple(
        one
        for one in vitals.by_slot.get((slot.domain, slot.key), ())
        if one.event in events and is_recent(vitals, one.at)
    )


def took(slot: SlotVital, provider: str) -> tuple[float, ...]:
    """Return how many seconds each attempt took that put *provider* in place."""
    return tuple(one.duration for one in slot.attempts if _is_success_of(one, provider))


def _is_success_of(attempt: Attempt, provider: str) -> bool:
    return attempt.outcome == "success" and attempt.provider == provider
