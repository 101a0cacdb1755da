"""``oneiric metrics``: the daemon's numbers, for who has no Prometheus at hand."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from oneiric.cli.desk import client
from oneiric.cli.options import Options, domain_option, global_options
from oneiric.cli.output import print_answer, print_document

if TYPE_CHECKING:
    from collections.abc import Mapping

# Not from the readout, which is read when there is something to show; a test compares the two.
GROUPS = ("resolution", "lifecycle", "remote", "settings", "process")


@click.command()
@global_options
@domain_option(required=False)
@click.option("--group", type=click.Choice(GROUPS), help="Which kind of numbers.")
@click.option(
    "--watch",
    metavar="[SECONDS]",
    is_flag=False,
    flag_value=2.0,
    type=click.FloatRange(min=0.1, max=3600),
    help="Again and again, every 2 seconds unless it says otherwise, with what counters gain a second.",
)
def metrics(options: Options, domain: str | None, group: str | None, watch: float | None) -> None:
    """Show what was counted since the daemon's start and what is true now, grouped and explained.

    What is zero is left out; -v shows it too.
    """
    daemon = client(options)
    previous: Mapping[str, Any] | None = None
    while True:
        answer = daemon.get("/v1/metrics", domain=domain, group=group)
        _show(answer, previous, options, is_repeated=watch is not None)
        if watch is None:
            return
        previous = answer
        time.sleep(watch)


def _show(
    answer: Mapping[str, Any], previous: Mapping[str, Any] | None, options: Options, *, is_repeated: bool
) -> None:
    """Print *answer*; in place of the last one on a terminal, else after it and a blank line."""
    on_terminal = is_repeated and sys.stdout.isatty() and not options.json
    if on_terminal:
        click.clear()
    elif previous is not None and not options.json:
        print_answer("", options)

    def render(found: Mapping[str, Any]) -> str:
        from oneiric.cli.readout import Readout

        text = Readout(found, previous).text(verbose=options.verbose)
        return _fitted(text, shutil.get_terminal_size().lines - 1) if on_terminal else text

    print_document(answer, options, render)
    sys.stdout.flush()


def _fitted(text: str, height: int) -> str:
    """Return as many lines of *text* as there is room for, and how many are missing."""
    lines = text.splitlines()
    if len(lines) <= height:
        return text
    shown = max(height - 1, 1)
    return "\n".join([*lines[:shown], f"... {len(lines) - shown} more lines; fewer: --group, --domain"])
