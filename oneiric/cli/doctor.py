"""``oneiric doctor``: which runbook and scenario applies now, what shows it, and what to type."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from oneiric.cli.desk import ask, document, from_disk
from oneiric.cli.options import Options, global_options
from oneiric.cli.output import print_answer, print_document, safe
from oneiric.errors import ConfigError, DaemonUnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import msgspec

    from oneiric.core.config import AppSettings
    from oneiric.runtime.snapshot import Snapshot

_COLORS: Final = {"P0": "red", "P1": "red", "P2": "yellow", "P3": "cyan"}
_FROM_DISK: Final = "no daemon answers: judged from the disk; instances, swaps and memory could not be looked at"


@click.command()
@global_options
@click.option(
    "--watch",
    metavar="[SECONDS]",
    is_flag=False,
    flag_value=2.0,
    type=click.FloatRange(min=0.1, max=3600),
    help="Again and again until Ctrl-C, every 2 seconds unless it says otherwise.",
)
@click.option(
    "--size",
    metavar="N",
    type=click.IntRange(min=1, max=1_000_000),
    help="Only say how much memory N instances need, and how to allow it.",
)
def doctor(options: Options, watch: float | None, size: int | None) -> int:
    """Say what is wrong, by the incident runbook: the evidence, what to type, and what will show that it is over.

    Exits 1 when anything is. Without a daemon it judges settings, plugins, cache and the manifest's host.
    """
    if size is not None:
        return _show_size(size, options)
    while True:
        answer = _diagnosis(options)
        if watch is None:
            print_document(answer, options, _text)
            return 1 if answer["findings"] else 0
        _redraw(answer, options)
        time.sleep(watch)


def _redraw(answer: dict[str, Any], options: Options) -> None:
    """Print *answer* in place of the last one; where no terminal shows it, after that and a blank line."""
    if sys.stdout.isatty() and not options.json:
        click.clear()
    print_document(answer, options, lambda found: f"{found['at']}\n\n{_text(found)}")
    if not options.json:
        print_answer("", options)
    sys.stdout.flush()


def _diagnosis(options: Options) -> dict[str, Any]:
    """Return the daemon's diagnosis, or one from the disk; a daemon that does not answer is part of that."""
    try:
        return ask(options, "/v1/doctor", otherwise=lambda: _from_disk(options))
    except DaemonUnreachableError as error:
        hint = f"; try: {error.hint}" if error.hint else ""
        return document(_from_disk(options, unreachable=f"{error}{hint}"))


def _from_disk(options: Options, *, unreachable: str = "") -> msgspec.Struct:
    from oneiric.api.doctor_view import doctor_document
    from oneiric.runtime.vitals import disk_only

    app, snapshot, problems = _settings(options)
    vitals = disk_only(
        app,
        snapshot,
        settings=options.directory,
        problems=problems,
        unreachable=unreachable,
        environ=os.environ,
    )
    return doctor_document(vitals, live=False)


def _settings(options: Options) -> tuple[AppSettings, Snapshot | None, tuple[str, ...]]:
    """Return the settings, what a daemon would know by them, and what is wrong with them; defaults if they are."""
    from oneiric.config.loader import load
    from oneiric.core.config import AppSettings

    app = AppSettings()
    try:
        app = load(options.directory, environ=os.environ, flags=options.flags).app
        return app, from_disk(options), ()
    except ConfigError as error:
        return app, None, tuple(map(str, error.problems))


def _text(answer: dict[str, Any]) -> str:
    findings = answer["findings"]
    blocks = [] if answer["live"] else [_FROM_DISK]
    blocks += ["\n".join(_block(number, finding)) for number, finding in enumerate(findings, 1)]
    return "\n\n".join(blocks if findings else [*blocks, "nothing to do"])


def _block(number: int, finding: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of one finding: what it is, what was seen, what to type, what ends it."""
    priority = click.style(finding["priority"], fg=_COLORS[finding["priority"]], bold=True)
    title = safe(finding["title"]) + (f" ({safe(finding['variant'])})" if finding["variant"] else "")
    yield f"{number}. {priority}  {click.style(title, bold=True)}"
    if finding["runbook"] is not None:
        yield f"   {safe(finding['heading'])}"
    if finding["subject"]:
        yield f"   {safe(finding['subject'])}"
    if finding["caused_by"]:
        yield f"   follows from {safe(finding['caused_by'])}: cure that first"
    for heading, name, mark in (("seen", "evidence", "-"), ("type", "commands", "$"), ("over when", "confirm", "-")):
        if finding[name]:
            yield f"   {heading}:"
            yield from (f"     {_marked(safe(line), mark)}" for line in finding[name])


def _marked(line: str, mark: str) -> str:
    return line if mark == "$" and line.startswith("#") else f"{mark} {line}"


def _show_size(instances: int, options: Options) -> int:
    from oneiric.doctor.sizing import size_for

    size = size_for(instances)
    answer = {
        "schema": "oneiric.doctor-size/1",
        "instances": size.instances,
        "needed_bytes": size.needed_mb * 1_000_000,
        "limit_bytes": size.limit_gib << 30,
        "commands": size.commands,
    }
    lines = [size.formula, f"limit to set: {size.limit_gib} GiB", ""]
    lines += [f"{where}:\n  {command}" for where, command in size.commands.items()]
    print_document(answer, options, lambda _answer: "\n".join(lines))
    return 0
