"""A project and who delivers to it, and what the commands about delivery leave and show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator

from examples.publisher.press import new_key
from examples.publisher.serve import Publisher
from tests.harness.delivery import Upstream

OPENAPI = json.loads((Path(__file__).parents[2] / "docs" / "reference" / "openapi.json").read_text())
MANIFEST, WHEEL = "/manifest.json", "/upstream-1.0-py3-none-any.whl"
STRANGER = new_key()
"""A key that nobody trusts at first."""


class Place(NamedTuple):
    """A project, and who delivers to it."""

    directory: Path
    upstream: Upstream
    publisher: Publisher

    def configure(self, url: str | None = None, **remote: Any) -> None:
        """Write its app.yml: where to fetch, whom to trust, and the settings *remote*."""
        text = self.upstream.settings(url or self.publisher.url, **remote)
        (self.directory / "settings" / "app.yml").write_text(text)

    @property
    def cache(self) -> Path:
        """Where it keeps what was delivered."""
        return self.directory / ".oneiric_cache"


def conforms(document: dict[str, Any], name: str) -> bool:
    """Say whether a document is as the published description of the API has it."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": OPENAPI["components"]}
    return Draft202012Validator(schema).is_valid(document)


def files(directory: Path) -> dict[str, bytes]:
    """Return what every file under *directory* holds, by its name."""
    found = (path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def shown(text: str) -> dict[str, str]:
    """Return what ``remote-status`` shows, by its headings."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
