"""``cli.md``: every command, from click's own description of it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from types import CodeType
from typing import Any, Final, NamedTuple

import click

from oneiric.cli.main import COMMANDS, EXIT_CODES, cli
from oneiric.cli.options import Options
from scripts.reference.environment import VARIABLES
from scripts.reference.markdown import ORIGIN, code, paragraphs, prose, table, wrapped

NEEDED: Final = "needs the daemon: without one it exits 3"
ASKED: Final = "asks the daemon; without one it answers from the disk"
APART: Final = "does not ask the daemon"
ITSELF: Final = "is the daemon"

_HEAD: Final = f"""\
{ORIGIN}

# Commands

`oneiric COMMAND`, or `python -m oneiric COMMAND`. The answer is on stdout, all else on stderr. With `--json` the answer
is one JSON object, whose `schema` names it: `oneiric.<command>/1`. An error reads `error[<code>]: what, where`, then
`try: <what to type next>`; the codes are in [errors](errors.md).

`KEY` is accepted as an argument and as `--key KEY`. A command finds the daemon by its control socket: `--socket`, else
`ONEIRIC_API__SOCKET`, else `api.socket` of `app.yml`, else `.oneiric_state/oneiric.sock`.
"""
_ENVIRONMENT: Final = """\
Each setting has a variable too: [settings](settings.md#variables). Those that are no setting:
"""
_ARGUMENTS: Final[Mapping[str, str]] = {
    "key": "the slot's key in its domain",
    "which": "a drill of `oneiric drill list`, or all of them",
    "file": "one settings file, such as `adapters.yml`; all of them when it is left out",
    "shell": "the shell that is to complete",
}


class Typed(NamedTuple):
    """A command as it is typed, without ``oneiric``, and what click knows of it."""

    words: tuple[str, ...]
    command: click.Command

    @property
    def name(self) -> str:
        """The whole name."""
        return " ".join(("oneiric", *self.words))

    @property
    def own_options(self) -> list[click.Option]:
        """Its options but the global ones, which every command has."""
        known = {option.name for option in global_options()}
        return [one for one in self.command.params if isinstance(one, click.Option) and one.name not in known]


def global_options() -> list[click.Option]:
    """Return what every command accepts."""
    return [one for one in cli.params if isinstance(one, click.Option)]


def commands(group: click.Group = cli, before: tuple[str, ...] = ()) -> Iterator[Typed]:
    """Yield every command, each group before what is in it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield Typed((*before, name), command)
        if isinstance(command, click.Group):
            yield from commands(command, (*before, name))


def daemon_of(command: click.Command) -> str:
    """Say whether *command* asks the daemon, and whether it can do without, by the names that its code uses."""
    function = inspect.unwrap(command.callback or (lambda: None))
    names = set(_names(function.__code__, function.__globals__, set()))
    if "Daemon" in names:
        return ITSELF
    if "client" in names and "DaemonAbsentError" not in names:
        return NEEDED
    return ASKED if names & {"client", "ask"} else APART


def page() -> str:
    """Return the page."""
    every = list(commands())
    leaves = [one for one in every if not isinstance(one.command, click.Group)]
    rows = [
        (f"[{code(one.name)}](#{one.name.replace(' ', '-')})", prose(_summary(one)), _daemon(one)) for one in leaves
    ]
    variables = [(code(name), f"{prose(read)}") for name, read in VARIABLES.items()]
    parts = [
        _HEAD,
        "The last column: `needed` exits 3 without a daemon; `asked` answers from the disk then, and says so.\n",
        table(("command", "does", "daemon"), rows),
        "\n## Exit codes\n",
        table(("code", "means"), ((str(code), means) for code, means in EXIT_CODES.items())),
        "\nWhat a command exits with beyond 0 and 2 is said where it is described; more codes, of a process that was",
        "killed, are in [troubleshooting](../runbooks/TROUBLESHOOTING.md#exit-codes).",
        "\n## Global options\n",
        "They are accepted before and after the name of a command.\n",
        _options(global_options()),
        "\n## Environment\n",
        _ENVIRONMENT,
        table(("variable", "says"), variables),
        "",
    ]
    return "\n".join([*parts, *(_section(one) for one in every)])


def _section(one: Typed) -> str:
    is_group = isinstance(one.command, click.Group)
    context = click.Context(one.command, info_name=one.name, obj=Options())
    usage = " ".join([one.name, *one.command.collect_usage_pieces(context)])
    rank = "##" if len(one.words) == 1 else "###"
    parts = [f"{rank} {one.name}", *paragraphs(one.command.help)]
    if is_group:
        within = [f"[{code(name)}](#{one.name}-{name})".replace(" ", "-") for name in _names_of(one)]
        return "\n\n".join([*parts, wrapped(f"Commands: {', '.join(within)}.")]) + "\n"
    parts.append(f"```text\n{usage}\n```")
    parts.append(wrapped(f"It {daemon_of(one.command)}."))
    arguments = [parameter for parameter in one.command.params if isinstance(parameter, click.Argument)]
    if arguments:
        parts.append(table(("argument", "is", "says"), (_argument(argument, one) for argument in arguments)))
    if one.own_options:
        parts.append(_options(one.own_options))
    return "\n\n".join(parts) + "\n"


def _names_of(one: Typed) -> list[str]:
    assert isinstance(one.command, click.Group)
    return one.command.list_commands(click.Context(one.command))


def _summary(one: Typed) -> str:
    if len(one.words) == 1:
        return COMMANDS[one.words[0]][1]
    return (one.command.help or "").partition("\n\n")[0].partition("; exits")[0].rstrip(".") + "."


def _daemon(one: Typed) -> str:
    return {NEEDED: "needed", ASKED: "asked"}.get(daemon_of(one.command), "")


def _argument(argument: click.Argument, one: Typed) -> tuple[str, str, str]:
    name = argument.make_metavar(click.Context(cli)).strip("[]")
    choices = f": {_choices(argument.type)}" if isinstance(argument.type, click.Choice) else ""
    names_a_slot = argument.name == "key" and any(
        other.name == "domain" and other.required for other in one.own_options
    )
    required = "required" if argument.required or names_a_slot else "optional"
    return code(argument.human_readable_name if choices else name), required, _ARGUMENTS[argument.name or ""] + choices


def _options(options: list[click.Option]) -> str:
    return table(("option", "value", "default", "says"), map(_option, options))


def _option(option: click.Option) -> tuple[str, str, str, str]:
    names = ", ".join(map(code, (*option.opts, *option.secondary_opts)))
    return names, _value(option), _default(option), prose(option.help or "")


def _value(option: click.Option) -> str:
    if option.is_flag:
        return ""
    words = _choices(option.type) if isinstance(option.type, click.Choice) else code(option.metavar or _kind(option))
    if isinstance(option.type, click.IntRange | click.FloatRange):
        least, most = option.type.min, option.type.max
        words += f", {least} or more" if most is None else f", {least} to {most:,}"
    return words + (", repeatable" if option.multiple else "")


def _kind(option: click.Option) -> str:
    return {"path": "FILE", "text": "TEXT"}.get(option.type.name, "N")


def _choices(kind: click.Choice[Any]) -> str:
    return ", ".join(code(str(choice)) for choice in kind.choices)


def _default(option: click.Option) -> str:
    if option.required:
        return "required"
    value = option.get_default(click.Context(cli), call=True)
    shown = not option.is_flag and isinstance(value, str | int | float) and value != ""
    return code(str(value)) if shown else ""


def _names(body: CodeType, known: Mapping[str, Any], seen: set[CodeType]) -> Iterator[str]:
    """Yield the names that *body* uses, and those that the functions of its module do which it names."""
    if body in seen:
        return
    seen.add(body)
    for name in body.co_names:
        yield name
        found = known.get(name)
        if inspect.isfunction(found) and found.__globals__ is known:
            yield from _names(found.__code__, known, seen)
    for constant in body.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant, known, seen)
