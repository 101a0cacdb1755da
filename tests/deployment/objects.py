"""The rendered objects of ``deployment/k8s``, and what they come to."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from oneiric.config.loader import load
from oneiric.core.config import Settings
from tests.deployment.kustomize import Object, identity, render
from tests.deployment.pod import ROOT, publish
from tests.harness.daemon import oneiric

K8S = ROOT / "deployment" / "k8s"
RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
RENDERED = {name: render(K8S / name) for name in ("base", "overlays/development", "overlays/production")}
OBJECTS = [pytest.param(found, id=f"{name} {' '.join(identity(found))}") for name, o in RENDERED.items() for found in o]
CORE = [parameter for parameter in OBJECTS if "coreos" not in parameter.values[0]["apiVersion"]]
WHERE = pytest.mark.parametrize("where", RENDERED)


def get(where: str, kind: str, name: str = "oneiric") -> Object:
    """Return one object of an overlay."""
    (found,) = (found for found in RENDERED[where] if identity(found) == (kind, name))
    return found


def pod(where: str) -> Object:
    """Return the pod's specification."""
    spec: Object = get(where, "Deployment")["spec"]["template"]["spec"]
    return spec


def container(where: str) -> Object:
    """Return its only container."""
    (found,) = pod(where)["containers"]
    return found


def settings(where: str, directory: Path) -> Settings:
    """Return the settings that the daemon has in the pod."""
    publish(directory, get(where, "ConfigMap", "oneiric-settings")["data"])
    environ = {entry["name"]: entry["value"] for entry in container(where)["env"] if "value" in entry}
    return load(directory, environ=environ, flags={"api.http": container(where)["command"][-1]})


def quantity(text: str) -> int:
    """Return the bytes of a Kubernetes quantity."""
    number, unit = re.fullmatch(r"(\d+)(Ki|Mi|Gi)", text).groups()  # type: ignore[union-attr]
    return int(number) << {"Ki": 10, "Mi": 20, "Gi": 30}[unit]


@cache
def size(instances: str) -> dict[str, Any]:
    """Return what ``oneiric doctor --size`` says."""
    said: dict[str, Any] = json.loads(oneiric(ROOT, "doctor", "--size", instances, "--json").stdout)
    return said


README = (K8S / "README.md").read_text()
BLOCKS = [
    "\n".join(line[4:] for line in block.split("\n"))
    for block in re.findall(r"(?:(?<=\n\n)|\A)((?:    .*\n?)+)", README)
]


def block(beginning: str) -> Object:
    """Return the block of the page that begins so."""
    (found,) = (text for text in BLOCKS if text.startswith(beginning))
    parsed: Object = yaml.safe_load(found)
    return parsed
