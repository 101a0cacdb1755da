"""Whether what findings say to type can be typed."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterable

import click

from oneiric.cli.main import cli
from oneiric.cli.options import Options


def untypeable(commands: Iterable[str]) -> list[str]:
    """Return those of *commands* that a shell or oneiric would not take."""
    typed = [command for command in commands if not command.startswith("#")]
    wrong = [command for command in typed if not _is_ours(command)]
    if _is_shell("\n".join(typed)):
        return wrong
    return wrong + [command for command in typed if not _is_shell(command)]


def _is_shell(commands: str) -> bool:
    return subprocess.run(["bash", "-n", "-c", commands], check=False, capture_output=True).returncode == 0


def _is_ours(command: str) -> bool:
    """Say whether a command of oneiric exists, with the options it is given."""
    if not command.startswith("oneiric "):
        return True
    words = shlex.split(command.partition("|")[0])
    here: click.Command | None = cli
    context = click.Context(cli)
    try:
        while isinstance(here, click.Group):
            words = words[1:]
            here = here.get_command(context, words[0] if words else "")
        if here is None:
            return False
        here.make_context(words[0], words[1:], obj=Options())
    except click.ClickException:
        return False
    return True
