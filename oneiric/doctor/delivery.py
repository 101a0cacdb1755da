"""Runbooks 3 and 4: the manifest does not arrive, must not be trusted, or what it names is not what it was.

Why the last synchronisation failed is one word of a closed set; each belongs to one rule here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from oneiric.core.words import plural
from oneiric.doctor import artifacts, network, refusals, signatures
from oneiric.doctor.finding import Finding, Priority
from oneiric.doctor.vitals import RemoteVital, Vitals
from oneiric.doctor.wording import ago, app_file, cut, host_of, instant, span

Rule = Callable[[Vitals, RemoteVital, str], Iterator[Finding]]
"""Yields what a synchronisation that failed for a reason means."""

_SLACK: Final = 60.0
_ROUNDS: Final = 3
"""How many rounds may be missed before nobody seems to look any more."""
_SOON: Final = 259_200.0  # as the alert
_EXPIRED: Final = ("expired", "stale")


def examine(vitals: Vitals) -> Iterator[Finding]:
    """Yield what is wrong with the delivery of the manifest and its artifacts."""
    remote = vitals.remote
    if remote is None:
        return
    reason = reason_of(remote)
    refused = remote.last_error if reason == "digest" and not _is_metadata(remote) else ""
    wrong = tuple(artifacts.examine(vitals, remote, refused=refused, sync=_sync(remote)))
    yield from wrong
    causes = wrong if refused else ()
    if _only_waits(remote, reason):
        yield _breaker(vitals, remote)
    elif reason:
        failed = tuple(RULES.get(reason, _unknown)(vitals, remote, reason))
        yield from failed
        causes = causes or failed
        if remote.breaker == "open":
            yield _breaker(vitals, remote, caused_by=causes[0].code if causes else "disk")
    else:
        yield from _passed_by(vitals, remote)
        yield from _stale(vitals, remote)
    if reason not in _EXPIRED:
        yield from _expiry(vitals, remote, caused_by=causes[0].code if causes else "")


def reason_of(remote: RemoteVital) -> str:
    """Return why synchronisations fail, "" when they do not."""
    if remote.last_reason == "state":
        return "state"
    if remote.consecutive_failures <= 0:
        return ""
    return remote.last_reason or remote.last_error.partition(":")[0] or "unknown"


def _sync(remote: RemoteVital) -> str:
    return "oneiric remote-sync --force" if remote.breaker == "open" else "oneiric remote-sync"


def _gravity(remote: RemoteVital) -> Priority:
    return "P1" if remote.consecutive_failures >= remote.failure_threshold else "P2"


def _history(vitals: Vitals, remote: RemoteVital) -> tuple[str, ...]:
    error = cut(remote.last_error) or "no words"
    failing = remote.consecutive_failures > 0
    failures = plural(remote.consecutive_failures, "failed synchronisation")
    return (
        f"{failures} in a row, the last at {instant(remote.last_sync_at)}: {error}" if failing else error,
        f"last success: {ago(remote.last_success_at, vitals.at)}",
    )


def _confirm(*more: str) -> tuple[str, ...]:
    return (
        *more,
        "oneiric remote-status: failures in a row 0, last success just now",
        "PromQL: oneiric:remote_sync_success_rate:5m > 0.99",
    )


# Why synchronisations fail


def _unreached(vitals: Vitals, remote: RemoteVital, reason: str) -> Iterator[Finding]:
    there, found = network.asked(remote), network.trouble(remote, reason)
    facts = list(_history(vitals, remote))
    if remote.reachable is not None:
        says = f": {cut(remote.reachable)}" if remote.reachable else " takes connections"
        facts.append(f"connecting just now: {host_of(remote.url) or 'the host'}{says}")
    if network.proxy_for(there) or found.variant == "proxy":
        facts.append(f"proxy variables: {cut(', '.join(remote.proxies)) or 'none that can be read'}")
    yield Finding(
        code="3A",
        priority=_gravity(remote),
        title=found.title,
        subject=there.url,
        variant=found.variant,
        evidence=tuple(facts),
        commands=tuple(network.commands(vitals, there, found.variant, _sync(remote))),
        confirm=_confirm(),
    )


def _unsigned(vitals: Vitals, remote: RemoteVital, reason: str) -> Iterator[Finding]:
    found = signatures.verdict(remote, reason)
    yield Finding(
        code=found.code,
        priority=found.priority or _gravity(remote),
        title=found.title,
        subject=remote.url,
        variant=found.variant,
        evidence=(*_history(vitals, remote), *signatures.evidence(remote, found)),
        commands=tuple(signatures.commands(vitals, remote, found, _sync(remote))),
        confirm=_confirm(*signatures.confirm(found)),
    )


def _mixed(vitals: Vitals, remote: RemoteVital, _reason: str) -> Iterator[Finding]:
    """Yield metadata that is not what was signed; of artifacts their own rule tells."""
    if _is_metadata(remote):
        yield from _unsigned(vitals, remote, "metadata")


def _is_metadata(remote: RemoteVital) -> bool:
    return "the TUF metadata" in remote.last_error


def _refused(vitals: Vitals, remote: RemoteVital, reason: str) -> Iterator[Finding]:
    found = refusals.refusal(vitals, remote, reason)
    if found.code == "disk" and any(disk.error or disk.is_full for disk in vitals.disks):
        return  # the disk itself is told of, with this as evidence
    yield Finding(
        code=found.code,
        priority=_gravity(remote) if found.code != "ledger" else "P1",
        title=found.title,
        subject=remote.url,
        variant=found.variant,
        evidence=_history(vitals, remote),
        commands=(*found.commands, _sync(remote)),
        confirm=_confirm(),
    )


def _unknown(vitals: Vitals, remote: RemoteVital, reason: str) -> Iterator[Finding]:
    yield Finding(
        code="remote",
        priority=_gravity(remote),
        title=f"synchronisations fail: {cut(reason)}",
        subject=remote.url,
        evidence=_history(vitals, remote),
        commands=("oneiric remote-status", "oneiric remote-sync --dry-run", _sync(remote)),
        confirm=_confirm(),
    )


def _expired(vitals: Vitals, remote: RemoteVital, _reason: str) -> Iterator[Finding]:
    yield _expiring(vitals, remote, is_over=True)


RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        **dict.fromkeys(network.REASONS, _unreached),
        **dict.fromkeys(signatures.REASONS, _unsigned),
        **dict.fromkeys(refusals.REASONS, _refused),
        **dict.fromkeys(_EXPIRED, _expired),
        "digest": _mixed,
    }
)
"""Which rule tells what a synchronisation that failed for a reason means."""


# What follows, and what comes of itself


def _only_waits(remote: RemoteVital, reason: str) -> bool:
    """Say whether nothing but the breaker keeps the manifest away any more."""
    if remote.breaker not in ("open", "half-open"):
        return False
    return network.is_over(remote, reason) or (not reason and remote.breaker == "open")


def _breaker(vitals: Vitals, remote: RemoteVital, *, caused_by: str = "") -> Finding:
    wait = f"{max(0.0, remote.breaker_wait):.0f} s"
    file = app_file(vitals)
    state = f"circuit breaker {remote.breaker}, {wait} left; {remote.consecutive_failures} failures in a row"
    facts = [f"{state}, {remote.failure_threshold} open it", *_history(vitals, remote)]
    if not caused_by:
        facts.append("connecting just now: the host takes connections; what failed before is over")
    first = (f"# first cure {caused_by}",) if caused_by else ()
    return Finding(
        code="3D",
        priority="P2" if caused_by else _gravity(remote),
        title="the circuit breaker keeps synchronisations back",
        subject=remote.url,
        evidence=tuple(facts),
        commands=(
            *first,
            _sync(remote),
            f"# or wait: in {wait} one round goes through by itself",
            f"# {file}: if it opens too easily raise remote.failure_threshold and remote.reset_timeout",
        ),
        confirm=_confirm("oneiric remote-status: circuit breaker closed"),
        caused_by=caused_by,
    )


def _passed_by(vitals: Vitals, remote: RemoteVital) -> Iterator[Finding]:
    """Yield what is wrong with a place that did not serve in the last round, in which another one did."""
    for happening in vitals.since(_ROUNDS * remote.refresh_interval + _SLACK, "remote-sync-warning"):
        place, found, why = str(happening.fields.get("error", "")).partition(" did not serve: ")
        if not found or (remote.last_success_at is not None and happening.at < remote.last_success_at):
            continue
        reason = why.partition(":")[0]
        there = msgspec.structs.replace(
            remote,
            url=place,
            last_reason=reason,
            last_error=why,
            last_sync_at=happening.at,
            claimed_keys=_claimed(vitals),
            reachable=None,
        )
        for finding in RULES.get(reason, _unknown)(vitals, there, reason):
            yield msgspec.structs.replace(
                finding,
                priority="P0" if finding.priority == "P0" else "P2",
                title=f"{finding.title}; another place served",
                evidence=(f"at {instant(happening.at)}: {place}: {cut(why)}", "another place served this round"),
            )


def _claimed(vitals: Vitals) -> tuple[str, ...]:
    """Return the keys that the manifest refused last is said to be signed with."""
    refused = [one for one in vitals.recent if one.event == "signature-verification-failed"]
    return tuple(str(refused[-1].fields.get("key_id", "")).split(",")) if refused else ()


def _stale(vitals: Vitals, remote: RemoteVital) -> Iterator[Finding]:
    """Yield that nobody looks for a newer manifest although nothing fails."""
    if vitals.process is None or not remote.refreshed:
        return
    since = max(filter(None, (remote.last_sync_at, vitals.process.started_at)))
    waited = (vitals.at - since).total_seconds()
    if waited <= _ROUNDS * remote.refresh_interval + _SLACK:
        return
    crashed = tuple(
        f"{instant(one.at)}: a background task failed: {cut(str(one.fields.get('error', '')))}"
        for one in vitals.recent
        if one.event == "task-failed" and one.fields.get("task") == "remote"
    )
    yield Finding(
        code="remote-stale",
        priority="P2",
        title="nobody looks for a newer manifest: the refresh does not run",
        subject=remote.url,
        evidence=(
            f"last synchronisation: {ago(remote.last_sync_at, vitals.at)}, none failed",
            f"one is due every {span(remote.refresh_interval)}",
            *crashed[-3:],
        ),
        commands=("oneiric remote-status", "oneiric remote-sync", "# if it stays so: restart oneiric"),
        confirm=_confirm(),
    )


def _expiry(vitals: Vitals, remote: RemoteVital, *, caused_by: str) -> Iterator[Finding]:
    """Yield that the manifest in force has expired, or will soon."""
    if remote.expires_at is None:
        return
    left = (remote.expires_at - vitals.at).total_seconds()
    if left < _notice(remote):
        yield _expiring(vitals, remote, is_over=left <= 0, caused_by=caused_by)


def _expiring(vitals: Vitals, remote: RemoteVital, *, is_over: bool, caused_by: str = "") -> Finding:
    expires_at = remote.expires_at
    which = "published manifest" if reason_of(remote) in _EXPIRED else "manifest in force"
    facts = [] if expires_at is None else [f"the manifest in force expires at {instant(expires_at)}"]
    facts += _history(vitals, remote) if reason_of(remote) else [f"now it is {instant(vitals.at)}"]
    return Finding(
        code="manifest-expiry",
        priority="P1" if is_over else "P2",
        title=f"the {which} {'has expired' if is_over else 'expires soon'}",
        subject=remote.url,
        variant="expired" if is_over else "soon",
        evidence=tuple(facts),
        commands=(
            "oneiric remote-status",
            "date -u",
            "# the publisher: publish it signed anew: oneiric manifest sign --expires-in 30d",
            _sync(remote),
        ),
        confirm=_confirm("oneiric remote-status: expires is later"),
        caused_by=caused_by,
    )


def _notice(remote: RemoteVital) -> float:
    """Return how many seconds ahead of its end a manifest is told of: 3 days, less for one that is to be short."""
    if remote.expires_at is None or remote.accepted_at is None:
        return _SOON
    return min(_SOON, (remote.expires_at - remote.accepted_at).total_seconds() / 2)
