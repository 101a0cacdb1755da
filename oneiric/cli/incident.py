"""``oneiric incident`` and ``support-bundle``: what happened, for the people who look at it afterwards."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from oneiric.cli.desk import client
from oneiric.cli.options import Group, Options, global_options
from oneiric.cli.output import note, print_document, safe
from oneiric.errors import DaemonAbsentError, DaemonUnreachableError, OneiricError, UsageError

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
# Besides what is a warning or worse: what somebody decided or changed.
_TOLD: Final = {
    "activity-changed",
    "candidate-released",
    "config-changed",
    "control-request",
    "daemon-ready",
    "daemon-stopping",
    "remote-sync-complete",
    "selection-pinned",
    "selection-unpinned",
    "swap-complete",
}
_PARTS: Final = {
    "status": ("/v1/status", {}),
    "list": ("/v1/list", {"shadowed": True}),
    "health": ("/v1/health", {}),
    "plugins": ("/v1/plugins", {}),
    "config": ("/v1/config", {}),
    "remote-status": ("/v1/remote", {}),
    "metrics": ("/v1/metrics", {}),
    "doctor": ("/v1/doctor", {}),
    "events": ("/v1/events", {}),
}


def _since(_context: click.Context, _parameter: click.Parameter, value: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", value, re.ASCII)
    if not found or not int(found[1]):
        raise click.BadParameter(f"{value!r} is no length of time; use 30m, 2h or 1d")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


@click.group(cls=Group, no_args_is_help=False)
@global_options
def incident(_options: Options) -> None:
    """Write down what happened."""


@incident.command("new")
@global_options
@click.option("--title", default="[INCIDENT NAME]", help="What to call it.")
@click.option("--id", "number", default="INC-", help="Its number in your tracker.")
@click.option(
    "--severity", type=click.Choice(["P0", "P1", "P2", "P3"]), default="P1", show_default=True, help="How grave it was."
)
@click.option("--since", default="2h", callback=_since, metavar="TIME", help="How far to look back: 30m, 2h (default).")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="A file, instead of stdout.")
def new_incident(
    options: Options, *, title: str, number: str, severity: str, since: timedelta, output: Path | None
) -> None:
    """Begin a post-incident review: the template, with the daemon's timeline and the doctor's findings filled in."""
    asked = client(options)
    now = datetime.now(UTC)
    events = [one for one in asked.get("/v1/events")["events"] if _is_told(one, now - since)]
    findings = asked.get("/v1/doctor")["findings"]
    text = review(events, findings, now=now, title=title, number=number, severity=severity)
    if output is None:
        answer = {"schema": "oneiric.incident/1", "text": text, "events": events, "findings": findings}
        print_document(answer, options, lambda found: str(found["text"]))
        return
    if output.exists():
        raise UsageError(f"{output}: is there already", hint="another name; what people wrote there is not replaced")
    output.write_text(text, encoding="utf-8")
    note(f"{output}: {len(events)} events and {len(findings)} findings; fill in what is in brackets", options)


def _is_told(event: Mapping[str, Any], earliest: datetime) -> bool:
    is_grave = event["level"] in ("warning", "error")
    return (is_grave or event["event"] in _TOLD) and datetime.fromisoformat(event["at"]) >= earliest


def review(
    events: list[dict[str, Any]],
    findings: list[dict[str, Any]],
    *,
    now: datetime,
    title: str,
    number: str,
    severity: str,
) -> str:
    """Return a post-incident review in Markdown, as the runbook's template has it."""
    rows = "\n".join(f"| {one['at'][11:19]} | {_cell(_words(one))} |" for one in events) or "| | |"
    first, last = (events[0]["at"], events[-1]["at"]) if events else ("", "")
    minutes = 0
    if events:
        minutes = round((datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds() / 60)
    found = "\n".join(_finding(one) for one in findings) or "The doctor finds nothing now."
    return f"""# Post-Incident Review: {title}

**Date:** {now:%Y-%m-%d}
**Incident ID:** {number}
**Severity:** {severity}
**Duration:** {minutes} minutes, from the first to the last event below
**Participants:** [names]

## Summary

[1-2 sentences]

## Timeline

Instants are UTC.

| Time | Event |
|------|-------|
{rows}

## Impact

- **User Impact:** [what did not work, for whom]
- **Affected Users:** [how many]
- **Revenue Impact:** [estimate]

## Evidence

{found}

## Root Cause

[explanation]

## What Went Well

- [...]

## What Went Wrong

- [...]

## Action Items

| Action | Owner | Due Date | Priority |
|--------|-------|----------|----------|
| [...] | [...] | [...] | [...] |

## Lessons Learned

[...]
"""


def _words(event: Mapping[str, Any]) -> str:
    fields = event["fields"]
    told = [f"{name}={value}" for name, value in fields.items() if value not in ("", None)]
    return f"{event['event']} {' '.join(told)}"


def _cell(text: str) -> str:
    """Return *text* as one cell of a table, whatever a provider or a stranger put into it."""
    return safe(text).replace("\\", "\\\\").replace("|", "\\|")[:400]


def _finding(finding: Mapping[str, Any]) -> str:
    lines = [f"- **{_cell(finding['heading'])}**: {_cell(finding['title'])}"]
    lines += [f"  - {_cell(one)}" for one in finding["evidence"]]
    return "\n".join(lines)


@click.command("support-bundle")
@global_options
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Where to write it.")
def support_bundle(options: Options, output: Path | None) -> None:
    """Pack what others need to help: status, settings, events, metrics, cache, versions; no secret is in it."""
    now = datetime.now(UTC)
    path = output or Path(f"oneiric-support-{now:%Y%m%dT%H%M%SZ}.tar.gz")
    parts = dict(_bundle(options))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, document in parts.items():
            content = json.dumps(document, indent=2, sort_keys=True).encode()
            member = tarfile.TarInfo(f"oneiric-support/{name}.json")
            member.size, member.mode, member.mtime = len(content), 0o600, int(now.timestamp())
            archive.addfile(member, io.BytesIO(content))
    answer = {"schema": "oneiric.support-bundle/1", "path": str(path), "parts": sorted(parts)}
    print_document(answer, options, lambda found: f"{found['path']}: {', '.join(found['parts'])}")


def _bundle(options: Options) -> Iterator[tuple[str, Any]]:
    """Yield each part by name; one that cannot be had says why."""
    yield "versions", _versions()
    asked = client(options)
    for name, (route, query) in _PARTS.items():
        try:
            yield name, asked.get(route, **query)
        except DaemonAbsentError as error:
            note("no daemon runs: the bundle holds what is on disk", options)
            yield name, {"error": str(error)}
            break
        except (DaemonUnreachableError, OneiricError) as error:
            yield name, {"error": str(error)}
    else:
        slots = [(row["domain"], row["key"]) for row in asked.get("/v1/list")["slots"]]
        yield "explain", {f"{d}/{k}": asked.get("/v1/explain", domain=d, key=k)["text"] for d, k in slots}
    yield "cache", _cache(options)


def _versions() -> dict[str, Any]:
    import platform
    import sys
    from importlib.metadata import distributions

    from oneiric import __version__

    installed = {found.metadata["Name"]: found.version for found in distributions() if found.metadata["Name"]}
    return {
        "oneiric": __version__,
        "python": sys.version,
        "platform": platform.platform(),
        "installed": dict(sorted(installed.items())),
    }


def _cache(options: Options) -> dict[str, Any]:
    from oneiric.config.loader import load
    from oneiric.remote.cache import Cache

    with suppress(OneiricError, OSError):
        app = load(options.directory, environ=os.environ, flags=options.flags).app
        cache = Cache(Path(app.cache_dir))
        stored = [{"name": one.name, "bytes": one.size_bytes, "sha256": one.sha256} for one in cache.stored()]
        return {"directory": app.cache_dir, "artifacts": stored, "quarantine": list(cache.quarantined())}
    return {"error": "the settings or the cache cannot be read; see: oneiric config check"}
