"""``oneiric-tuf-client``: our TUF engine behind the command line that tuf-conformance drives; for nothing else."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

import anyio

from oneiric.errors import OneiricError
from oneiric.remote.cache import Cache
from oneiric.remote.fetch import Fetcher

_PINNED: Final = "pinned-root"
"""The root that ``init`` was given; beside it, ``root.json`` is the newest one."""
_DEADLINE: Final = 30.0
_LIMIT_BYTES: Final = 256 << 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what *arguments* ask; return 0 if it was done, else 1."""
    asked = _parser().parse_args(arguments)
    try:
        if asked.command == "init":
            for name in (_PINNED, "root.json"):
                shutil.copyfile(asked.root, asked.metadata_dir / name)
        else:
            anyio.run(_refresh, asked)
    except (OneiricError, OSError, ModuleNotFoundError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - what a command line says
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "oneiric-tuf-client", description="The TUF client of Oneiric, for tuf-conformance."
    )
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url")
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-dir", type=Path)
    parser.add_argument("--target-base-url")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    return parser


async def _refresh(asked: argparse.Namespace) -> None:
    """Refresh the metadata and, if that is the command, fetch the targets that are not here yet."""
    from oneiric.remote.tuf import Repository, is_target

    async with Fetcher() as fetcher:
        repository = Repository(
            fetcher,
            root=(asked.metadata_dir / _PINNED).read_bytes(),
            cache=Cache(asked.metadata_dir),
            directory=asked.metadata_dir,
            metadata_url=_folder(asked.metadata_url),
            targets_url=_folder(asked.target_base_url or ""),
            deadline=_DEADLINE,
        )
        await repository.refresh()
        for name in asked.target_name if asked.command == "download" else ():
            target, place = await repository.find(name), asked.target_dir / quote(name, safe="")
            if not place.exists() or not is_target(target, place.read_bytes()):
                content = await repository.fetch(target, limit_bytes=_LIMIT_BYTES, deadline=_DEADLINE)
                await repository.verify(target, content)
                place.write_bytes(content)


def _folder(url: str) -> str:
    return url if url.endswith("/") else f"{url}/"
