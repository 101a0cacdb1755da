"""The command line's front door: finds the command, runs it, and turns what went wrong into words and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final, NoReturn

import click

from oneiric.cli.options import Group, Options, global_options
from oneiric.errors import OneiricError, UsageError

# Where each command lives. One is imported when it is run, and none for --help.
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "list": ("look:list_slots", "Who fills each slot."),
    "explain": ("look:explain", "Who fills one slot, and why."),
    "status": ("look:status", "Slots in operation: state, pin, leases, swaps."),
    "health": ("look:health", "What the last probes said; --probe asks now."),
    "doctor": ("doctor:doctor", "What is wrong, by the runbook, and what to type."),
    "metrics": ("metrics:metrics", "What was counted since the start, for people."),
    "plugins": ("look:plugins", "Entry points, and what became of them."),
    "swap": ("change:swap", "Replace what fills a slot, and pin the choice."),
    "unpin": ("change:unpin", "Let precedence choose again."),
    "pause": ("change:pause", "Stop new leases on a slot."),
    "resume": ("change:resume", "Allow new leases again."),
    "drain": ("change:drain", "Stop new leases and wait for the last one."),
    "remote-sync": ("remote:remote_sync", "Fetch, verify and apply the signed manifest now."),
    "remote-status": ("remote:remote_status", "The last synchronisation, counts, breaker, version, keys."),
    "cache": ("cache:cache", "List, verify and prune the cache."),
    "watch": ("change:watch", "Stop or start following the settings."),
    "config": ("settings:config", "Check, show and describe the settings."),
    "manifest": ("manifest:manifest", "Sign, verify and pack manifests."),
    "incident": ("incident:incident", "Begin a post-incident review from what happened."),
    "support-bundle": ("incident:support_bundle", "Pack what others need to help."),
    "drill": ("drill:drill", "Rehearse the runbook's incidents in a sandbox."),
    "orchestrate": ("orchestrate:orchestrate", "Run the daemon."),
    "completion": ("completion:completion", "Print a shell's completion script."),
}

EXIT_CODES: Final[Mapping[int, str]] = {
    0: "done, or the answer is yes",
    1: "failed, or the answer is no",
    2: "typed wrongly",
    3: "the daemon is needed, and none answers",
    4: "the settings are invalid",
    5: "not to be trusted: a signature, a digest, a version",
    130: "interrupted by Ctrl-C",
    141: "who read the answer had seen enough",
}


class _Commands(Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is click's
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(f"oneiric.cli.{module}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in COMMANDS.items()])


_HELP: Final = f"""\
Resolve, explain, lease and hot-swap the replaceable parts of a Python program.

Exits with {"; ".join(f"{code}: {words}" for code, words in EXIT_CODES.items())}.
"""


@click.group(cls=_Commands, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False)
@global_options
def cli(_options: Options) -> None:
    """Resolve, explain, lease and hot-swap the replaceable parts of a Python program."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with one of EXIT_CODES."""
    options = Options()
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        answer: Any = cli.main(
            given, prog_name="oneiric", complete_var="_ONEIRIC_COMPLETE", standalone_mode=False, obj=options
        )
        code = answer if isinstance(answer, int) else 0
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except click.ClickException as error:
        options.json = options.json or "--json" in given  # it may not have got that far
        code = _report(UsageError(_one_line(error), hint=_help_for(error)), options)
    except OneiricError as error:
        code = _report(error, options)
    except OSError as error:
        code = _operating_system(error, options)
    except Exception as error:
        if options.debug:
            raise
        code = _report(_bug(error), options)
    sys.exit(code)


def _bug(error: Exception) -> OneiricError:
    first = error
    while isinstance(first, ExceptionGroup):
        first = first.exceptions[0]
    text = f"a bug in oneiric: {type(first).__name__}: {first}"
    bug = OneiricError(text, hint="the same command with --debug, and report it")
    bug.code = "bug"
    return bug


def _operating_system(error: OSError, options: Options) -> int:
    """Report what the system refused: a file, or, for a --help, stdout."""
    from oneiric.cli.output import silence

    where = f"{error.filename}: " if error.filename is not None else ""
    code = _report(OneiricError(f"{where}{error.strerror or error}"), options)
    silence(sys.stdout)
    return code


def _one_line(error: click.ClickException) -> str:
    return " ".join(error.format_message().split())


def _help_for(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context is not None else 'oneiric'} --help"


def _report(error: OneiricError, options: Options) -> int:
    from oneiric.cli.output import print_error

    print_error(error, options)
    return error.exit_code
