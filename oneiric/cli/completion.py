"""``oneiric completion``: the script that teaches a shell our commands; ``proposals`` is what it then asks for."""

from __future__ import annotations

import json

import click

from oneiric.cli.options import Options, global_options
from oneiric.cli.output import print_answer


@click.command()
@global_options
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(options: Options, shell: str) -> None:
    """Print the completion script of a shell.

    bash: eval "$(oneiric completion bash)"
    """
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    from oneiric.cli.main import cli

    kind = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}[shell]
    script = kind(cli, {}, "oneiric", "_ONEIRIC_COMPLETE").source()
    answer = {"schema": "oneiric.completion/1", "shell": shell, "script": script}
    print_answer(json.dumps(answer) if options.json else script, options)
