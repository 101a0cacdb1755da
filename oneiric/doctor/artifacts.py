"""Runbook 3, scenario C and runbook 4, scenarios A and B: artifacts that are not what the manifest names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from oneiric.core.words import plural
from oneiric.doctor.finding import Finding
from oneiric.doctor.vitals import Evidence, Happening, RemoteVital, Vitals
from oneiric.doctor.wording import ago, cut, host_of, instant, quoted

_HEALED: Final = 300.0
"""Seconds for which a wrong artifact that was replaced is still told of: the alert fires as long."""
_SHOWN: Final = 8

_CONFIRM: Final = (
    "oneiric cache verify: every digest is right, exit code 0",
    'PromQL: increase(oneiric_remote_digest_checks_total{outcome="failed"}[5m]) == 0',
)


def examine(vitals: Vitals, remote: RemoteVital, *, refused: str, sync: str) -> Iterator[Finding]:
    """Yield what is wrong with artifacts.

    Args:
        refused: what the last synchronisation said, if it failed over an artifact's digest.
        sync: the command that synchronises now.
    """
    wrong = {one.artifact for one in remote.evidence}
    fetched = tuple(one for one in remote.evidence if one.origin == "fetched")
    cached = tuple(one for one in remote.evidence if one.origin != "fetched")
    if len(wrong) > 1:
        yield _many(vitals, remote, sync)
    else:
        if fetched or (refused and not cached):
            yield _fetched(vitals, remote, fetched, refused, sync)
        if cached:
            yield _cached(vitals, cached, sync)
    yield from _healed(vitals, wrong)


def _seen(evidence: Iterable[Evidence], vitals: Vitals) -> Iterator[str]:
    last = {one.artifact: one for one in evidence}
    for artifact, one in list(last.items())[-_SHOWN:]:
        digests = f", the manifest says {one.expected}, found {one.actual}" if one.expected and one.actual else ""
        where = "as fetched" if one.origin == "fetched" else "in the cache"
        yield f"{cut(artifact)}: wrong {where} at {ago(one.at, vitals.at)}{digests}"
    if len(last) > _SHOWN:
        yield f"... and {len(last) - _SHOWN} more"


def _fetched(vitals: Vitals, remote: RemoteVital, evidence: tuple[Evidence, ...], refused: str, sync: str) -> Finding:
    artifact = evidence[-1].artifact if evidence else ""
    cache, url = vitals.cache_dir, remote.url
    commands = ["oneiric cache verify"]
    if artifact:
        commands.append(f"rm -f {quoted(f'{cache}/artifacts/{artifact}')}")
    commands.append(sync)
    if host_of(url):
        commands.append(f"curl -sS {quoted(url.removeprefix('tuf+'))} | grep sha256")
    if artifact:
        commands.append(f"sha256sum {quoted(f'{cache}/quarantine')}/*{quoted(artifact)}")
    commands.append(
        "# if it is still wrong: ask the release engineer to publish the artifact again; it may be an attack"
    )
    return Finding(
        code="3C",
        priority="P0",
        title="an artifact was fetched that is not the one the manifest names; it was not used",
        subject=artifact,
        evidence=(*_seen(evidence, vitals), *([cut(refused)] if refused else [])),
        commands=tuple(commands),
        confirm=('log: event="digest-check-success"' + (f' artifact="{artifact}"' if artifact else ""), *_CONFIRM),
    )


def _cached(vitals: Vitals, evidence: tuple[Evidence, ...], sync: str) -> Finding:
    artifact, cache = evidence[-1].artifact, quoted(vitals.cache_dir)
    return Finding(
        code="4A",
        priority="P0",
        title="one cached artifact is not what it was; the disk is suspect",
        subject=artifact,
        evidence=(*_seen(evidence, vitals), "no other is known to be wrong: rather a disk error than an attack"),
        commands=(
            "oneiric cache verify",
            f"rm -f {quoted(f'{vitals.cache_dir}/artifacts/{artifact}')}",
            sync,
            *_disk_health(cache),
            "# if the disk is failing: replace it",
        ),
        confirm=(f'log: event="digest-check-success" artifact="{artifact}"', *_CONFIRM),
    )


def _disk_health(directory: str) -> tuple[str, ...]:
    device = f'"$(df --output=source {directory} | tail -n 1)"'
    return (f"df -h {directory}", "dmesg | grep -i error", f"smartctl -a {device}")


def _many(vitals: Vitals, remote: RemoteVital, sync: str) -> Finding:
    cache = quoted(vitals.cache_dir)
    number = len({one.artifact for one in remote.evidence})
    return Finding(
        code="4B",
        priority="P0",
        title=f"{number} artifacts are not what the manifest names: possibly an attack",
        subject=remote.url,
        evidence=tuple(_seen(remote.evidence, vitals)),
        commands=(
            f"tar czf /tmp/oneiric-cache-$(date +%Y%m%d-%H%M%S).tar.gz {cache}",
            "# tell the security team now: a P0 incident; they decide what happens from here on",
            *_stop(vitals),
            f"ls -la {cache}/artifacts {cache}/quarantine",
            "# the security team: was the source, the signing key or this machine taken over?",
            "# once they say so, rebuild the cache: the next two commands, then start oneiric",
            f"rm -rf {cache}",
            sync,
        ),
        confirm=_CONFIRM,
    )


def _stop(vitals: Vitals) -> tuple[str, ...]:
    if vitals.process is None:
        return ('docker stop $(docker ps -q --filter "name=oneiric")',)
    return (f"systemctl stop oneiric || docker stop oneiric || kill {vitals.process.pid}",)


def _healed(vitals: Vitals, wrong: set[str]) -> Iterator[Finding]:
    """Yield artifacts that were wrong not long ago and are right again."""
    failures: dict[str, Happening] = {}
    healed: dict[str, tuple[Happening, Happening]] = {}
    for happening in vitals.since(_HEALED, "digest-check-failed", "digest-check-success"):
        artifact = str(happening.fields.get("artifact", ""))
        if happening.event == "digest-check-failed":
            failures[artifact] = happening
            healed.pop(artifact, None)
        elif artifact in failures:
            healed[artifact] = (failures.pop(artifact), happening)
    healed = {artifact: pair for artifact, pair in healed.items() if artifact not in wrong}
    if not healed:
        return
    yield Finding(
        code="digest-healed",
        priority="P3",
        title=f"{plural(len(healed), 'artifact')} had a wrong digest and could be replaced by a right one",
        subject=", ".join(healed) if len(healed) <= _SHOWN else "",
        evidence=tuple(
            f"{artifact}: wrong at {instant(before.at)}, found {before.fields.get('actual_digest', '')}; "
            f"right at {instant(after.at)}"
            for artifact, (before, after) in list(healed.items())[-_SHOWN:]
        ),
        commands=("oneiric cache verify", *_disk_health(quoted(vitals.cache_dir))),
        confirm=_CONFIRM,
    )
