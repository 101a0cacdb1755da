"""The bill of materials names what the wheel needs, by the pinned requirements, in the form CycloneDX defines."""

from __future__ import annotations

import importlib.util
import json
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from referencing import Registry, Resource

from scripts.release.project import Project, ReleaseError
from scripts.release.requirements import read_pinned
from scripts.release.sbom import bill, installed_in

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "requirements" / "run.txt"
HERE = Path(sysconfig.get_paths()["purelib"])


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    """Return the bill of a wheel, with what is installed here."""
    wheel = tmp_path / "some.whl"
    wheel.write_bytes(b"a wheel")
    return bill(Project(ROOT), wheel, read_pinned(REQUIREMENTS), installed_in(HERE))


def schema(name: str) -> Any:
    found = importlib.util.find_spec("cyclonedx")
    if found is None or not found.submodule_search_locations:
        pytest.skip("cyclonedx-python-lib, which has the schema, is not installed")
    path = Path(found.submodule_search_locations[0]) / "schema" / "_res" / f"{name}.SNAPSHOT.schema.json"
    return json.loads(path.read_text(encoding="utf-8"))


def test_bill_is_valid_by_the_schema(document: dict[str, Any]) -> None:
    others = [schema("spdx"), schema("jsf-0.82")]
    registry: Registry[Any] = Registry().with_resources(
        (other["$id"], Resource.from_contents(other)) for other in others
    )
    errors = Draft7Validator(schema("bom-1.6"), registry=registry).iter_errors(document)
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


def test_bill_has_each_pinned_package_with_its_digests(document: dict[str, Any]) -> None:
    listed = {
        (one["name"], one["version"]): tuple(digest["content"] for digest in one["hashes"])
        for one in document["components"]
    }
    assert listed == {(one.name, one.version): one.digests for one in read_pinned(REQUIREMENTS)}


def test_bill_says_the_licence_of_all_that_is_installed(document: dict[str, Any]) -> None:
    installed = installed_in(HERE)
    assert [one["name"] for one in document["components"] if one["name"] in installed and not one.get("licenses")] == []


def test_bill_tells_what_an_extra_needs_from_what_the_wheel_needs(document: dict[str, Any]) -> None:
    scopes = {one["name"]: one["scope"] for one in document["components"]}
    assert (scopes["redis"], scopes["click"], scopes["httpcore2"]) == ("optional", "required", "required")


def test_bill_says_what_needs_what(document: dict[str, Any]) -> None:
    depends = {one["ref"].partition("@")[0]: one["dependsOn"] for one in document["dependencies"]}
    (core,) = (one["bom-ref"] for one in document["components"] if one["name"] == "httpcore2")
    assert core in depends["pkg:pypi/httpx2"]
    assert core not in depends["pkg:pypi/oneiric"]


@pytest.mark.parametrize("line", ["click==8.5.1", "click>=8 --hash=sha256:" + "0" * 64, "click"])
def test_requirement_that_is_not_pinned_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "run.txt"
    path.write_text(f"{line}\n")
    with pytest.raises(ReleaseError, match="not pinned"):
        list(read_pinned(path))
