"""``oneiric completion``, and what a shell proposes for KEY and PROVIDER: what the running daemon has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

TIMEOUT = 1.0


def complete_keys(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str | CompletionItem]:
    """Return the keys of the domain typed so far that begin with *begun*."""
    return sorted({row["key"] for row in _slots(context) if row["key"].startswith(begun)})


def complete_providers(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str | CompletionItem]:
    """Return the providers of the slot typed so far that begin with *begun*."""
    key = context.params.get("key_option") or context.params.get("key")
    names = {
        name
        for row in _slots(context)
        if key in (None, row["key"])
        for name in (row["provider"], *(placing["provider"] for placing in row["shadowed"]))
    }
    return sorted(name for name in names if name.startswith(begun))


def _slots(context: click.Context) -> list[Any]:
    import os
    from pathlib import Path

    from oneiric.api.client import Client
    from oneiric.config.control import control_socket
    from oneiric.errors import OneiricError

    found: list[Any] = []
    try:
        path = control_socket(Path("settings"), os.environ, None)
        found = Client(path).get("/v1/list", timeout=TIMEOUT, domain=context.params.get("domain"), shadowed=True)[
            "slots"
        ]
    except OneiricError:
        return found  # a shell that completes is no place for errors
    return found
