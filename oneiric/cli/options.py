"""What every command accepts: the global options, before and after its name, and the way to name a slot."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.core import ParameterSource

from oneiric.cli.proposals import complete_keys, complete_providers

if TYPE_CHECKING:
    from pathlib import Path

F = TypeVar("F", bound=Callable[..., Any])

# Not from the core, which reads more than a --help needs; a test compares the two.
DOMAIN_NAMES: Final = ("adapter", "service", "task", "event", "workflow", "action")
NAME: Final = r"(?!.*\.\.)[a-z0-9][a-z0-9._-]{0,127}"


class Options:
    """The global options as given so far."""

    json: bool = False
    settings: str = "settings"
    cache_dir: str | None = None
    socket: str | None = None
    no_color: bool = False
    verbose: bool = False
    debug: bool = False

    @property
    def directory(self) -> Path:
        """The settings directory."""
        from pathlib import Path

        return Path(self.settings)

    @property
    def flags(self) -> dict[str, Any]:
        """What the options set, by the settings' dotted paths."""
        return {"api.socket": self.socket, "cache_dir": self.cache_dir}

    @property
    def color(self) -> bool | None:
        """Whether to colour: None leaves it to whether a terminal reads (https://no-color.org)."""
        return False if self.no_color or os.environ.get("NO_COLOR") else None


class Group(click.Group):
    """A group that says which command may have been meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that *args* begin with."""
        names = self.list_commands(ctx)
        if args and args[0] not in names and not args[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(args[0], names, n=1)
            advice = f"did you mean {close[0]}?" if close else f"one of: {', '.join(names)}"
            raise click.UsageError(f"there is no command {args[0]!r}; {advice}", ctx)
        return super().resolve_command(ctx, args)


def _checked_name(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(NAME, value, re.ASCII):
        rule = "use lower-case letters, digits, '.', '_' and '-', at most 128, without '..'"
        raise click.BadParameter(f"{value!r} cannot be a name; {rule}")
    return value


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    options = context.ensure_object(Options)
    if context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE:
        setattr(options, parameter.name or "", value)


def _show_version(context: click.Context, _parameter: click.Parameter, value: Any) -> None:
    if value:
        from oneiric import __version__

        click.echo(f"oneiric {__version__}")
        context.exit()


_GLOBAL: Final = (
    click.option("--json", is_flag=True, help="Print one JSON object."),
    click.option("--settings", metavar="DIR", help="The settings directory (default: settings)."),
    click.option("--cache-dir", metavar="DIR", help="The cache of manifests and artifacts (default: cache_dir)."),
    click.option("--socket", metavar="PATH", help="The daemon's control socket (default: api.socket)."),
    click.option("--no-color", is_flag=True, help="No colours, also on a terminal."),
    click.option("-v", "--verbose", is_flag=True, help="Say more, on stderr and in tables."),
    click.option("--debug", is_flag=True, help="Show the traceback of a bug."),
)


def global_options(function: F) -> F:
    """Give a command the global options; the function receives them all, wherever they stood, as an Options."""

    @wraps(function)
    def call(**arguments: Any) -> Any:
        return function(click.get_current_context().ensure_object(Options), **arguments)

    command: Any = call
    for option in reversed(_GLOBAL):
        command = option(command)
    for parameter in command.__click_params__[-len(_GLOBAL) :]:
        parameter.expose_value, parameter.callback = False, _remember
    version = click.option(
        "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Print the version."
    )
    return version(command)  # type: ignore[no-any-return]


def domain_option(*, required: bool) -> Callable[[F], F]:
    """Return ``--domain``."""
    return click.option("--domain", type=click.Choice(DOMAIN_NAMES), required=required, help="Which kind of part.")


def key_option(function: F) -> F:
    """Give a command KEY, as an argument or as ``--key``; it is None when not given."""
    option = click.option(
        "--key",
        "key_option",
        callback=_checked_name,
        metavar="KEY",
        help="The same as KEY.",
        shell_complete=complete_keys,
    )
    argument = click.argument("key", callback=_checked_name, required=False, shell_complete=complete_keys)

    @wraps(function)
    def call(*positional: Any, key: str | None, key_option: str | None, **arguments: Any) -> Any:
        if key is not None and key_option is not None and key != key_option:
            raise click.UsageError(f"KEY is given twice: {key!r} and --key {key_option!r}", click.get_current_context())
        return function(*positional, key=key if key is not None else key_option, **arguments)

    return argument(option(call))  # type: ignore[return-value]


def slot_options(function: F) -> F:
    """Give a command ``--domain`` and KEY, both required."""

    @wraps(function)
    def call(*positional: Any, key: str | None, **arguments: Any) -> Any:
        if key is None:
            raise click.UsageError("KEY is missing: which part of the domain?", click.get_current_context())
        return function(*positional, key=key, **arguments)

    return domain_option(required=True)(key_option(call))  # type: ignore[return-value]


def provider_option(function: F) -> F:
    """Give a command ``--provider``."""
    return click.option(
        "--provider",
        callback=_checked_name,
        metavar="P",
        help="Whom; without it precedence decides.",
        shell_complete=complete_providers,
    )(function)
