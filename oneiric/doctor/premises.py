"""What everything else stands on: a daemon that answers, disks, state, log and an event loop that is on time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Final

from oneiric.core.words import plural
from oneiric.doctor.failures import Failure, failure_of
from oneiric.doctor.finding import Finding
from oneiric.doctor.vitals import Disk, ProcessVital, Vitals
from oneiric.doctor.wording import cut, instant, quoted, size, span

LAG: Final = 1.0
"""Seconds by which the event loop may be late."""
_SETTLED: Final = 60.0  # seconds; a start imports providers, and the worst lag of half a minute is remembered
_LOG: Final = re.compile(r"(?:^|; )(the log cannot be written: .*)", re.DOTALL)
_DISK_WORDS: Final = re.compile(
    r"no space left|disk quota|read-only|not writable|disk i/o|database or disk is full", re.IGNORECASE
)
_TIMEOUTS: Final = 3600.0
_TOLD: Final = 3600.0  # seconds for which lost state is a finding
_STRANGER: Final = "belongs to another user"


def examine(vitals: Vitals) -> Iterator[Finding]:
    """Yield which premises do not hold."""
    yield from _unanswered(vitals)
    disks = [disk for disk in vitals.disks if disk.error or disk.is_full]
    for disk in disks:
        yield _disk(vitals, disk)
    process = vitals.process
    if process is None:
        return
    yield from _degraded(vitals, process, has_bad_disk=bool(disks))
    yield from _discarded(vitals)
    yield from _late(vitals, process)
    yield from _abandoned(vitals, process)
    yield from _paused(vitals, process)


def _unanswered(vitals: Vitals) -> Iterator[Finding]:
    if not vitals.unreachable or vitals.process is not None:
        return
    if _STRANGER in vitals.unreachable:
        yield _not_ours(vitals)
        return
    found = re.search(r"(?:\bpid|-p) (\d+)", vitals.unreachable)
    look = f"ps -o pid,stat,etime,args -p {found[1]}" if found else "pgrep -af 'oneiric.* orchestrate'"
    yield Finding(
        code="daemon",
        priority="P0",
        title="the daemon does not answer",
        variant="unreachable",
        evidence=(cut(vitals.unreachable),),
        commands=(
            look,
            "systemctl status oneiric || docker ps -a --filter name=oneiric",
            "journalctl -u oneiric -n 50 || docker logs --tail 50 oneiric",
            "# stat T: it was stopped, continue it with kill -CONT; else a provider blocks its event loop: py-spy dump",
            "systemctl restart oneiric || docker restart oneiric",
        ),
        confirm=("oneiric status: answers", 'PromQL: up{job="oneiric"} == 1'),
    )


def _not_ours(vitals: Vitals) -> Finding:
    return Finding(
        code="daemon",
        priority="P3",
        title="the daemon runs as another user, and only that one and root may ask it",
        variant="another user",
        evidence=(cut(vitals.unreachable),),
        commands=("id -un", "sudo oneiric doctor"),
        confirm=("oneiric doctor, typed by the daemon's user: says what the daemon knows",),
    )


def _disk(vitals: Vitals, disk: Disk) -> Finding:
    path = quoted(disk.path)
    free = f"{size(disk.free_bytes)} of {size(disk.total_bytes)} are free"
    facts = [f"{disk.path}: {cut(disk.error)}; {free}" if disk.error else f"{disk.path}: {free}"]
    if vitals.remote is not None and vitals.remote.last_reason in ("disk", "size"):
        facts.append(f"last synchronisation at {instant(vitals.remote.last_sync_at)}: {cut(vitals.remote.last_error)}")
    cure: tuple[str, ...]
    if disk.error:
        cure = (f"ls -ld {path}", f"findmnt -T {path}", "dmesg | grep -i error")
        hint = "# mounted ro: cure the disk, then mount -o remount,rw; else chown the directory to the daemon's user"
    else:
        cure = (f"du -xsh {path}", "oneiric cache prune")
        hint = "# free some space on that file system; logs are the usual suspects: journalctl --vacuum-size=500M"
    return Finding(
        code="disk",
        priority="P1",
        title=f"a directory that oneiric writes to {'cannot be written' if disk.error else 'is on a full disk'}",
        subject=disk.path,
        variant="not writable" if disk.error else "full",
        evidence=tuple(facts),
        commands=(f"df -h {path}", *cure, hint),
        confirm=(
            f"test -w {path}: exit code 0" if disk.error else f"df -h {path}: more is free",
            "oneiric status: nothing degraded",
        ),
    )


def _degraded(vitals: Vitals, process: ProcessVital, *, has_bad_disk: bool) -> Iterator[Finding]:
    """Yield what the daemon says that it cannot write: its state, its log."""
    log = _LOG.search(process.degraded)
    state = process.degraded[: log.start()] if log is not None else process.degraded
    if state:
        yield _state(vitals, state, has_bad_disk=has_bad_disk)
    if log is not None:
        yield _log(vitals, process, log[1], has_bad_disk=has_bad_disk)


def _discarded(vitals: Vitals) -> Iterator[Finding]:
    """Yield that the daemon began without the pins and pauses it had."""
    for one in vitals.since(_TOLD, "state-discarded")[-1:]:
        yield Finding(
            code="state",
            priority="P2",
            title="the stored state could not be read: pins and pauses of before are not in force",
            subject=vitals.state_dir,
            variant="discarded",
            evidence=(f"{instant(one.at)}: {cut(str(one.fields.get('error', '')))}",),
            commands=(
                "oneiric list",
                f"ls -la {quoted(vitals.state_dir)}",
                "# pin and pause again what should be: oneiric swap, oneiric pause; or restore a backup while stopped",
            ),
            confirm=("oneiric list: shows the pins and pauses you want; this finding ends an hour after the start",),
        )


def _state(vitals: Vitals, words: str, *, has_bad_disk: bool) -> Finding:
    state = quoted(vitals.state_dir)
    since = [one for one in vitals.recent if one.event == "state-degraded"]
    facts = [cut(words), *(f"since {instant(one.at)}" for one in since[-1:])]
    return Finding(
        code="state",
        priority="P1",
        title="the state directory cannot be written: pins and pauses would not survive a restart",
        subject=vitals.state_dir,
        evidence=tuple(facts),
        commands=(
            "oneiric status",
            f"df -h {state}",
            f"ls -la {state}",
            "# do not restart the daemon before: it holds what could not be written and writes it when it can",
            f"# make {vitals.state_dir} writable for the daemon's user",
        ),
        confirm=("oneiric status: nothing degraded",),
        caused_by="disk" if has_bad_disk and _DISK_WORDS.search(words) else "",
    )


def _log(vitals: Vitals, process: ProcessVital, words: str, *, has_bad_disk: bool) -> Finding:
    return Finding(
        code="log",
        priority="P1",
        title="the log cannot be written: events are lost, and log queries and alerts on them are blind",
        evidence=(cut(words), f"seen at {instant(vitals.at)}"),
        commands=(
            "oneiric status",
            f"ls -l /proc/{process.pid}/fd/1 /proc/{process.pid}/fd/2",
            "df -h",
            "# cure what takes the daemon's stdout: the full disk, the log driver, or the pipe whose reader left",
        ),
        confirm=("oneiric status: nothing degraded", 'LogQL: {app="oneiric"} has new lines'),
        caused_by="disk" if has_bad_disk and _DISK_WORDS.search(words) else "",
    )


def _late(vitals: Vitals, process: ProcessVital) -> Iterator[Finding]:
    uptime = (vitals.at - process.started_at).total_seconds()
    if not process.loop_lag > LAG or uptime < _SETTLED:
        return
    yield Finding(
        code="event-loop",
        priority="P2",
        title="the event loop is late: everything waits for something that blocks it",
        evidence=(f"late by {span(process.loop_lag)} at worst in the last 30 s; up to {span(LAG)} is usual",),
        commands=(
            f"top -b -n 1 -p {process.pid}",
            f"py-spy dump --pid {process.pid}",
            "oneiric status",
            "# an async provider that blocks: move the blocking call into a thread; a busy machine: give it more CPU",
        ),
        confirm=("PromQL: oneiric_event_loop_lag_seconds < 1",),
    )


def _abandoned(vitals: Vitals, process: ProcessVital) -> Iterator[Finding]:
    if process.abandoned_calls <= 0:
        return
    late = [
        (slot, attempt)
        for slot in vitals.slots
        for attempt in slot.attempts
        if attempt.reason == "timeout" and (vitals.at - attempt.at).total_seconds() <= _TIMEOUTS
    ]
    named = (f"{slot}: {attempt.provider} timed out at {instant(attempt.at)}" for slot, attempt in late[-3:])
    yield Finding(
        code="abandoned-calls",
        priority="P2",
        title="calls of providers were given up and still run: threads and memory are not freed",
        evidence=(f"{plural(process.abandoned_calls, 'call')} given up and not ended", *named),
        commands=(
            "oneiric status",
            "oneiric health",
            f"py-spy dump --pid {process.pid}",
            "# the provider: give every wait on the outside a timeout of its own; a restart ends the calls",
        ),
        confirm=("oneiric status: no longer says that calls were given up",),
        caused_by="2C" if any(map(_took_too_long, map(partial(failure_of, vitals), vitals.slots))) else "",
    )


def _took_too_long(failure: Failure | None) -> bool:
    """Say whether *failure* is a swap that was given up, which leaves a call that goes on."""
    return failure is not None and failure.code == "2C"


def _paused(vitals: Vitals, process: ProcessVital) -> Iterator[Finding]:
    if process.watch != "paused":
        return
    by = [one for one in vitals.recent if one.event == "watch-paused"]
    since = f", since {instant(by[-1].at)} by {cut(str(by[-1].fields.get('by', '')))}" if by else ""
    yield Finding(
        code="watch-paused",
        priority="P3",
        title="settings changes are not applied: the watch is paused",
        evidence=(f"watch paused{since}",),
        commands=("oneiric config check", "oneiric watch resume"),
        confirm=("oneiric status: watch on", 'log: event="watch-resumed"'),
    )
