"""The renderer of these tests against kustomize, and the overlays against their files."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from oneiric import __version__
from tests.deployment.kustomize import Object, UnknownError, identity, render
from tests.deployment.objects import K8S, RENDERED, WHERE, block


def kustomize(directory: Path) -> dict[tuple[str, str], Object]:
    """Return what kustomize itself makes of a directory; skip the test where there is none, since Debian has none."""
    if (kubectl := shutil.which("kubectl")) is None:
        pytest.skip("no kubectl to compare with; the renderer of these tests stands alone")
    version = subprocess.run([kubectl, "version", "--client", "-o", "json"], capture_output=True, check=False).stdout
    if not re.match(r"v[5-9]\.", json.loads(version or "{}").get("kustomizeVersion", "")):
        pytest.skip("this kubectl has no kustomize 5 to compare with")
    done = subprocess.run([kubectl, "kustomize", str(directory)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {identity(found): found for found in yaml.safe_load_all(done.stdout)}


@WHERE
def test_renderer_does_what_kustomize_does(where: str) -> None:
    assert {identity(found): found for found in RENDERED[where]} == kustomize(K8S / where)


@pytest.mark.parametrize(
    "line",
    ["images: []", "namePrefix: x-", "patches: [{target: {kind: Deployment}, patch: x}]", "labels: [{includeX: true}]"],
)
def test_renderer_refuses_what_it_does_not_know(line: str, tmp_path: Path) -> None:
    (tmp_path / "object.yaml").write_text("{apiVersion: v1, kind: Namespace, metadata: {name: x}}")
    (tmp_path / "kustomization.yaml").write_text(f"kind: Kustomization\nresources: [object.yaml]\n{line}\n")
    with pytest.raises(UnknownError):
        render(tmp_path)


def test_renderer_refuses_a_patch_of_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "object.yaml").write_text("{apiVersion: v1, kind: Namespace, metadata: {name: x}}")
    (tmp_path / "kustomization.yaml").write_text("kind: Kustomization\npatches: [{path: object.yaml}]\n")
    with pytest.raises(UnknownError):
        render(tmp_path)


def test_every_file_is_used_by_an_overlay() -> None:
    used = {K8S / "README.md", K8S / "components/scrape-annotations/prometheus-job.yml"}
    for file in K8S.rglob("kustomization.yaml"):
        wanted = yaml.safe_load(file.read_text())
        named = [*wanted.get("resources", ()), *(patch["path"] for patch in wanted.get("patches", ()))]
        named += [name for generator in wanted.get("configMapGenerator", ()) for name in generator["files"]]
        used |= {file, *(file.parent / name for name in named if (file.parent / name).is_file())}
    assert {path for path in K8S.rglob("*") if path.is_file()} == used


def test_overlay_of_the_page_takes_image_and_label(tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    own = tmp_path / "k8s" / "overlays" / "own"
    own.mkdir()
    overlay = {"resources": ["../production"], **block("images:"), **block("labels:")}
    (own / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    made = kustomize(own)
    (found,) = made["Deployment", "oneiric"]["spec"]["template"]["spec"]["containers"]
    assert found["image"] == f"registry.example.com/oneiric:{__version__}"
    assert made["PrometheusRule", "oneiric"]["metadata"]["labels"] == {
        "app": "oneiric",
        "release": "kube-prometheus-stack",
    }
