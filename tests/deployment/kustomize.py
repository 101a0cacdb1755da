"""What kustomize makes of ``deployment/k8s``: as much of it as is used there, and an error for all else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

_KEYS = {"apiVersion", "kind", "namespace", "labels", "resources", "components", "configMapGenerator", "patches"}
_MERGED = {"containers": "name", "volumes": "name"}
"""Lists that are merged item by item, and what tells their items apart. No patch may hold another list."""
_CLUSTER_WIDE = {"Namespace"}


class UnknownError(Exception):
    """Something that this does not know how kustomize treats."""


def render(directory: Path) -> list[Object]:
    """Return the objects that ``kubectl apply -k`` of *directory* would apply."""
    return _build(directory, [], "Kustomization")


def identity(found: Mapping[str, Any]) -> tuple[str, str]:
    """Return the kind and the name of an object."""
    return found["kind"], found["metadata"]["name"]


def merge(base: Any, patch: Any, where: str = "") -> Any:
    """Return *base* as changed by the strategic merge *patch*."""
    if isinstance(patch, dict):
        base = dict(base) if isinstance(base, dict) else {}
        for key, value in patch.items():
            if key.startswith("$"):
                raise UnknownError(f"{where}: {key}")
            if value is None:
                base.pop(key, None)
            else:
                base[key] = merge(base.get(key), value, key)
        return base
    if isinstance(patch, list):
        if where not in _MERGED:
            raise UnknownError(f"a patch of the list {where}")
        name = _MERGED[where]
        held = {item[name]: item for item in base or ()}
        items = {item[name]: merge(held.get(item[name]), item, where) for item in patch}
        items |= {key: item for key, item in held.items() if key not in items}
        return list(items.values())
    return patch


def _build(directory: Path, objects: list[Object], kind: str) -> list[Object]:
    """Return *objects* and what *directory* adds, after all that it does to them."""
    wanted = _one(directory / "kustomization.yaml")
    _refuse_unknown(wanted, _KEYS, directory)
    if wanted["kind"] != kind:
        raise UnknownError(f"{directory} is no {kind}")
    for name in wanted.get("resources", ()):
        found = directory / name
        objects = [*objects, *(_build(found, [], "Kustomization") if found.is_dir() else _documents(found))]
    for name in wanted.get("components", ()):
        objects = _build(directory / name, objects, "Component")
    for generator in wanted.get("configMapGenerator", ()):
        objects = _generate(generator, directory, objects)
    for patch in wanted.get("patches", ()):
        _refuse_unknown(patch, {"path"}, directory)
        objects = _patch(objects, _one(directory / patch["path"]))
    if len({identity(found) for found in objects}) != len(objects):
        raise UnknownError(f"{directory}: an object is there twice")
    return [_adorned(found, wanted) for found in objects]


def _generate(generator: Object, directory: Path, objects: list[Object]) -> list[Object]:
    _refuse_unknown(generator, {"name", "files", "behavior", "options"}, directory)
    if generator["options"] != {"disableNameSuffixHash": True} or generator.get("behavior", "merge") != "merge":
        raise UnknownError(f"{directory}: {generator}")
    made = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": generator["name"]},
        "data": {Path(name).name: (directory / name).read_text(encoding="utf-8") for name in generator["files"]},
    }
    return _patch(objects, made) if "behavior" in generator else [*objects, made]


def _patch(objects: list[Object], patch: Object) -> list[Object]:
    if [identity(found) for found in objects].count(identity(patch)) != 1:
        raise UnknownError(f"a patch of {identity(patch)}, which is not there once")
    if patch.pop("$patch", "merge") == "delete":
        return [found for found in objects if identity(found) != identity(patch)]
    return [merge(found, patch) if identity(found) == identity(patch) else found for found in objects]


def _adorned(found: Object, wanted: Object) -> Object:
    metadata = dict(found["metadata"])
    for label in wanted.get("labels", ()):
        _refuse_unknown(label, {"pairs"}, "labels")
        metadata["labels"] = {**metadata.get("labels", {}), **label["pairs"]}
    if "namespace" in wanted and found["kind"] not in _CLUSTER_WIDE:
        metadata["namespace"] = wanted["namespace"]
    return {**found, "metadata": metadata}


def _refuse_unknown(found: Iterable[str], known: set[str], where: object) -> None:
    if not set(found) <= known:
        raise UnknownError(f"{where}: {set(found) - known}")


def _documents(path: Path) -> list[Object]:
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


def _one(path: Path) -> Object:
    (document,) = _documents(path)
    return document
