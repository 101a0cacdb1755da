"""The bill of materials: what a wheel needs, as CycloneDX 1.6 in JSON, the same bytes for the same wheel.

We write the few fields ourselves; the tests hold them against the schema that cyclonedx-python-lib brings along.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from scripts.release.project import Project
from scripts.release.requirements import Pinned

_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "https://cyclonedx.org/schema/bom/1.6")
_CLASSIFIER: Final = "License :: OSI Approved :: "
Installed = Mapping[NormalizedName, Distribution]


def installed_in(packages: Path) -> Installed:
    """Return the distributions in the directory *packages*."""
    return {canonicalize_name(found.metadata["Name"]): found for found in distributions(path=[str(packages)])}


def bill(project: Project, wheel: Path, pinned: Iterable[Pinned], installed: Installed) -> dict[str, Any]:
    """Return the document for *wheel*.

    Args:
        pinned: what it was tested with; any file with one of the digests.
        installed: where licences and what needs what are read from.
    """
    listed = {one.name: one for one in pinned}
    refs = {name: _purl(name, one.version) for name, one in listed.items()}
    needs = {name: sorted(refs[other] for other in _needs(installed.get(name)) & refs.keys()) for name in listed}
    itself = _purl("oneiric", project.version)
    direct = _named(project.metadata["dependencies"])
    required = _closure(direct, {name: _needs(installed.get(name)) for name in listed})
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, digest)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(project.epoch, UTC).isoformat().replace("+00:00", "Z"),
            "component": {
                "type": "application",
                "bom-ref": itself,
                "name": "oneiric",
                "version": project.version,
                "description": project.metadata["description"],
                "purl": itself,
                "hashes": [{"alg": "SHA-256", "content": digest}],
                "licenses": [{"expression": project.metadata["license"]}],
            },
        },
        "components": [
            _component(one, installed.get(one.name), required=one.name in required) for one in listed.values()
        ],
        "dependencies": [
            {"ref": itself, "dependsOn": sorted(refs[name] for name in direct & refs.keys())},
            *({"ref": refs[name], "dependsOn": needs[name]} for name in listed),
        ],
    }


def _component(one: Pinned, distribution: Distribution | None, *, required: bool) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": _purl(one.name, one.version),
        "name": one.name,
        "version": one.version,
        "scope": "required" if required else "optional",
        "purl": _purl(one.name, one.version),
        "hashes": [{"alg": "SHA-256", "content": digest} for digest in one.digests],
    }
    if licences := [] if distribution is None else _licences(distribution):
        component["licenses"] = licences
    if one.marker:
        component["properties"] = [{"name": "oneiric:marker", "value": one.marker}]
    return component


def _licences(distribution: Distribution) -> list[dict[str, Any]]:
    """Say what the metadata say: an expression, else names from classifiers, else the first line of free text."""

    def stated(field: str) -> list[str]:
        return distribution.metadata.get_all(field) or []

    if expressions := stated("License-Expression"):
        return [{"expression": expressions[0]}]
    names = [line.removeprefix(_CLASSIFIER) for line in stated("Classifier") if line.startswith(_CLASSIFIER)]
    names = names or [line for text in stated("License") for line in text.strip().splitlines()[:1]]
    return [{"license": {"name": name}} for name in names]


def _needs(distribution: Distribution | None) -> set[NormalizedName]:
    return set() if distribution is None else _named(distribution.requires or [])


def _named(requirements: Iterable[str]) -> set[NormalizedName]:
    """Return whom *requirements* name that hold here, without extras."""
    parsed = [Requirement(one) for one in requirements]
    return {canonicalize_name(one.name) for one in parsed if one.marker is None or one.marker.evaluate({"extra": ""})}


def _closure(direct: set[NormalizedName], needs: Mapping[NormalizedName, set[NormalizedName]]) -> set[NormalizedName]:
    found: set[NormalizedName] = set()
    waiting = set(direct)
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= needs.get(name, set()) - found
    return found


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{name}@{version}"
