"""What a shell proposes for KEY and PROVIDER: what the running daemon has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

TIMEOUT: Final = 1.0


def complete_keys(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str | CompletionItem]:
    """Return the keys of the domain typed so far that begin with *begun*."""
    return sorted({row["key"] for row in _slots(context) if row["key"].startswith(begun)})


def complete_providers(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str | CompletionItem]:
    """Return the providers of the slot typed so far that begin with *begun*."""
    # click leaves words as they are when an option at the end has no value yet, which is when we are asked.
    key = context.params.get("key_option") or context.params.get("key") or next(iter(context.args), None)
    names = {
        name
        for row in _slots(context)
        if key in (None, row["key"])
        for name in (row["provider"], *(placing["provider"] for placing in row["shadowed"]))
    }
    return sorted(name for name in names if name and name.startswith(begun))


def _slots(context: click.Context) -> list[Any]:
    import os

    from oneiric.api.client import Client
    from oneiric.config.control import control_socket
    from oneiric.errors import OneiricError

    options: Any = context.obj  # the Options, whose module imports this one
    daemon = Client(control_socket(options.directory, os.environ, options.socket))
    slots: list[Any] = []
    try:
        slots = daemon.get("/v1/list", timeout=TIMEOUT, domain=context.params.get("domain"), shadowed=True)["slots"]
    except OneiricError:
        return slots  # a shell that completes is no place for errors
    return slots
