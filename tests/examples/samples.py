"""The manifests in ``tests/samples``, entry by entry, and what this machine lacks of what they need."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from oneiric import Slot

SAMPLES = Path(__file__).parents[1] / "samples"
NAMES = {"v1": "published-manifest-v1.yaml", "v2": "published-manifest-v2.yaml"}


class Entry(NamedTuple):
    """One entry of a sample, as published."""

    sample: str
    fields: dict[str, Any]

    @property
    def slot(self) -> Slot[Any]:
        return Slot(self.fields["domain"], self.fields["key"])

    def __str__(self) -> str:
        return f"{self.sample} {self.slot} {self.fields['provider']}"


def published(sample: str) -> list[Entry]:
    document = yaml.safe_load((SAMPLES / NAMES[sample]).read_text())
    return [Entry(sample, fields) for fields in document["entries"]]


ENTRIES = [entry for sample in NAMES for entry in published(sample)]
every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=str)
every_sample = pytest.mark.parametrize("sample", NAMES)


def unmet(entry: Entry) -> list[str]:
    """Say what *entry* needs and this machine lacks, in the words of explain, worked out from the sample alone."""
    wanted = entry.fields.get("python_version", "")
    if not SpecifierSet(wanted).contains(platform.python_version(), prereleases=True):
        return [f"needs Python {wanted}, this is {platform.python_version()}"]
    lacking = []
    for text in entry.fields.get("requires", []):
        requirement = Requirement(text)
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            lacking.append(f"requires {text}: not installed")
        else:
            if not requirement.specifier.contains(version, prereleases=True):
                lacking.append(f"requires {text}: {version} is installed")
    return lacking
