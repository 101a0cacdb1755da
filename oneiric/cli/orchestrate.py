"""``oneiric orchestrate``: the daemon."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from oneiric.cli.options import Options, global_options


@click.command()
@global_options
@click.option("--http", metavar="HOST:PORT", help="Where /healthz and /readyz are served.")
@click.option("--no-watch", is_flag=True, help="Do not follow changes of the settings.")
def orchestrate(options: Options, http: str | None, no_watch: bool) -> None:
    """Run the daemon: resolve, activate and swap until SIGTERM."""
    import anyio

    from oneiric.api.server import serve
    from oneiric.runtime.daemon import Daemon

    working_directory = str(Path.cwd())
    if working_directory not in sys.path:  # settings name modules beside them; last, so that they shadow nothing
        sys.path.append(working_directory)
    flags: dict[str, Any] = {
        name: value
        for name, value in (("api.http", http), ("api.socket", options.socket), ("cache_dir", options.cache_dir))
        if value is not None
    }
    daemon = Daemon(Path(options.settings), flags=flags, environ=os.environ, serve=serve, watch=not no_watch)
    sys.exit(anyio.run(daemon.run))
