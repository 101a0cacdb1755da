"""``oneiric drill``: rehearse the runbook's scenarios, each in a sandbox of its own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oneiric.cli.options import Group, Options, global_options
from oneiric.cli.output import note, print_document, safe, table
from oneiric.errors import UsageError

if TYPE_CHECKING:
    from oneiric.drills.drill import Drill
    from oneiric.drills.run import Report
    from oneiric.drills.timeline import Entry


@click.group(cls=Group, no_args_is_help=False)
@global_options
def drill(_options: Options) -> None:
    """Rehearse incidents: a real fault, the alert, the runbook's steps, the doctor's verdict, the cure."""


@drill.command("list")
@global_options
def list_drills(options: Options) -> None:
    """Show every drill: the runbook's scenario, what goes wrong, and the alert it waits for."""
    from oneiric.drills.scenarios import drills

    rows = [{"id": one.code, "title": one.title, "alert": one.alert} for one in drills()]
    answer = {"schema": "oneiric.drill-list/1", "drills": rows}
    print_document(answer, options, lambda found: _list_text(found["drills"]))


def _list_text(rows: list[dict[str, str]]) -> str:
    return table(["DRILL", "WHAT GOES WRONG", "ALERT"], [[row["id"], row["title"], row["alert"]] for row in rows])


@drill.command("run")
@global_options
@click.argument("which", metavar="ID|all")
@click.option(
    "--prometheus",
    type=click.Choice(["auto", "off"]),
    default="auto",
    show_default=True,
    help="auto: a real Prometheus and Alertmanager where they are installed; off: the rules evaluated here.",
)
@click.option("--keep", is_flag=True, help="Leave each sandbox's directory, and say where it is.")
@click.option("--jobs", type=click.IntRange(1, 8), default=2, show_default=True, help="How many at the same time.")
@click.option("--html", "page", type=click.Path(path_type=Path, dir_okay=False), help="Also write one HTML page.")
def run_drills(options: Options, *, which: str, prometheus: str, keep: bool, jobs: int, page: Path | None) -> int:
    """Carry out one drill or all of them; exits 1 unless every one did what the runbook says."""
    import msgspec

    from oneiric.drills.page import page as html_of
    from oneiric.drills.report import summary

    chosen = _chosen(which)
    reports = _run_all(chosen, options, prometheus=prometheus == "auto", keep=keep, jobs=min(jobs, len(chosen)))
    if page is not None:
        page.write_text(html_of(reports), encoding="utf-8")
        note(f"the report is in {page}", options)
    answer = {
        "schema": "oneiric.drill-run/1",
        "passed": all(report.passed for report in reports),
        "drills": [msgspec.to_builtins(report) for report in reports],
    }
    print_document(answer, options, lambda _found: "\n".join(map(safe, summary(reports).splitlines())))
    return 0 if answer["passed"] else 1


def _chosen(which: str) -> list[Drill]:
    from oneiric.drills.scenarios import drills

    known = {one.code: one for one in drills()}
    if which == "all":
        return list(known.values())
    if which.upper() not in known:
        raise UsageError(f"there is no drill {which!r}", hint=f"oneiric drill list; one of {', '.join(known)}, or all")
    return [known[which.upper()]]


def _run_all(chosen: list[Drill], options: Options, *, prometheus: bool, keep: bool, jobs: int) -> list[Report]:
    from oneiric.drills.monitors import watch
    from oneiric.drills.run import run

    turn = threading.Lock()

    def one(subject: Drill) -> Report:
        def told(entry: Entry) -> None:
            from oneiric.drills.report import line

            with turn:
                note(safe(f"{subject.code} {line(entry)}"), options)

        return run(subject, watch(real=prometheus), keep=keep, told=told)

    with ThreadPoolExecutor(jobs) as at_once:
        return list(at_once.map(one, chosen))
