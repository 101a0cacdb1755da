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
@click.option("--http", metavar="HOST:PORT", help="Where /metrics, /healthz and /readyz are served.")
@click.option("--manifest", metavar="URL", help="Where the signed manifest is.")
@click.option("--refresh-interval", metavar="S", type=float, help="Seconds between two looks at it.")
@click.option("--no-remote", is_flag=True, help="Neither fetch nor use a manifest.")
@click.option("--no-watch", is_flag=True, help="Do not follow changes of the settings.")
def orchestrate(
    options: Options,
    *,
    http: str | None,
    manifest: str | None,
    refresh_interval: float | None,
    no_remote: bool,
    no_watch: bool,
) -> None:
    """Run the daemon: resolve, activate and swap until SIGTERM.

    SIGTERM and Ctrl-C drain, close every instance and exit 0; SIGHUP reads the settings again. Exits 4 when the
    settings are invalid, and 1 when another daemon runs or an instance could not be closed.
    """
    import gc

    import anyio

    from oneiric.api.server import serve
    from oneiric.runtime.daemon import Daemon

    gc.freeze()  # what is imported is never garbage, and looking at it would stop every thread for twice as long
    working_directory = str(Path.cwd())
    if working_directory not in sys.path:  # settings name modules beside them; last, so that they shadow nothing
        sys.path.append(working_directory)
    flags: dict[str, Any] = {
        **options.flags,
        "api.http": http,
        "remote.manifest_url": manifest,
        "remote.refresh_interval": refresh_interval,
    }
    daemon = Daemon(
        options.directory,
        flags={name: value for name, value in flags.items() if value is not None},
        environ=os.environ,
        serve=serve,
        watch=not no_watch,
        remote=not no_remote,
    )
    sys.exit(anyio.run(daemon.run))
