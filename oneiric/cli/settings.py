"""``oneiric config``: check, show and describe the settings."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

import click

from oneiric.cli.desk import ask
from oneiric.cli.options import Group, Options, global_options
from oneiric.cli.output import print_answer, print_document, table
from oneiric.errors import CHECK_SETTINGS, ConfigError

if TYPE_CHECKING:
    import msgspec


_CORRECT: Final = "correct what is named, then check again; until then a running daemon keeps its last good settings"


@click.group(cls=Group, no_args_is_help=False)
@global_options
def config(_options: Options) -> None:
    """Check, show and describe the settings."""


@config.command()
@global_options
def check(options: Options) -> None:
    """Read all settings as a daemon would; exits 4 and lists every mistake if there is one."""
    from oneiric.config.loader import load
    from oneiric.core.config import FILES
    from oneiric.remote.policy import trust_policy

    try:
        trust_policy(load(options.directory, environ=os.environ, flags=options.flags).app.remote)
    except ConfigError as error:
        if error.hint == CHECK_SETTINGS:  # which is what was typed
            error.hint = _CORRECT
        raise
    read = [name for name in FILES if (options.directory / name).exists()]
    answer = {"schema": "oneiric.config-check/1", "valid": True, "settings": str(options.directory), "files": read}
    where = ", ".join(read) if read else "no file, so the defaults hold"
    print_document(answer, options, lambda found: f"{found['settings']}: valid ({where})")


@config.command()
@global_options
@click.option("--origin", is_flag=True, help="Also where each was set.")
def show(options: Options, origin: bool) -> None:
    """Show the settings in force, the daemon's if one runs; secrets read ``***``."""

    def otherwise() -> msgspec.Struct:
        from oneiric.api.views import config_document
        from oneiric.config.loader import load

        return config_document(load(options.directory, environ=os.environ, flags=options.flags), live=False)

    answer = ask(options, "/v1/config", otherwise=otherwise)
    print_document(answer, options, lambda found: _show_text(found["settings"], origin=origin))


def _show_text(rows: list[dict[str, Any]], *, origin: bool) -> str:
    if origin:
        return table(["SETTING", "FROM", "VALUE"], [[row["path"], row["origin"], _value(row["value"])] for row in rows])
    return table(["SETTING", "VALUE"], [[row["path"], _value(row["value"])] for row in rows])


def _value(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


@config.command()
@global_options
@click.argument("file", required=False)
def schema(options: Options, file: str | None) -> None:
    """Print the JSON Schema of all settings files, or of one such as adapters.yml, for an editor to check against."""
    from oneiric.config.show import json_schema

    described = json_schema(file)
    answer = {"schema": "oneiric.config-schema/1", "json_schema": described}
    print_answer(json.dumps(answer) if options.json else json.dumps(described, indent=2), options)
