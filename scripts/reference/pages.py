"""Every page that is written, by its name in ``docs/reference``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from oneiric.core.manifest_schema import json_schema
from scripts.reference import api, cli, errors, manifest, python, settings
from scripts.reference.markdown import ORIGIN, table

DIRECTORY: Final = Path("docs", "reference")

# Every page of the directory, also those that others write.
CONTENTS: Final[Mapping[str, str]] = {
    "cli.md": "each command: usage, arguments, options, exit codes, and which need the daemon",
    "settings.md": "each setting: value, default, variable of the environment, and what waits for a restart",
    "manifest.md": "each field of a manifest, what is signed, what is refused, and the limits",
    "manifest.schema.json": "the JSON Schema of manifests",
    "errors.md": "each error: code, exit code, HTTP status, when it is raised",
    "api.md": "each route of the control API, and what it speaks",
    "openapi.json": "the OpenAPI description of the control API",
    "events.md": "each event of the log, its fields, and a line of it",
    "metrics.md": "each metric, its labels, and from when on it reads 0",
    "alerts.md": "each alert, when it fires, and what ends it",
    "python.md": "each name that `oneiric` and `oneiric.testing` export",
}


def pages() -> Mapping[str, str]:
    """Return the text of each page that this package writes, by name."""
    return {
        "index.md": _index(),
        "cli.md": cli.page(),
        "settings.md": settings.page(),
        "manifest.md": manifest.page(),
        "manifest.schema.json": json.dumps(json_schema(), indent=2) + "\n",
        "errors.md": errors.page(),
        "api.md": api.page(),
        "python.md": python.page(),
    }


def main(root: Path) -> None:
    """Write the pages of the repository at *root*."""
    for name, text in pages().items():
        (root / DIRECTORY / name).write_text(text, encoding="utf-8")


def _index() -> str:
    rows = [(f"[{name}]({name})", says) for name, says in CONTENTS.items()]
    return "\n".join([ORIGIN, "", "# Reference", "", "Written from the code.", "", table(("page", "says"), rows), ""])
