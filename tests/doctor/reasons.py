"""Why a synchronisation can fail, read from the source: every reason that an error of it is raised for."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import oneiric
from oneiric.errors import FetchError, ManifestError, OneiricError
from oneiric.remote.reports import reason_of

ROOT = Path(oneiric.__file__).parent
ERRORS = {"ManifestError", "TrustError", "FetchError", "DigestError"}


@cache
def reasons() -> set[str]:
    """Return every reason."""
    trees = {path: ast.parse(path.read_text()) for part in ("core", "remote") for path in (ROOT / part).glob("*.py")}
    relevant = {path: tree for path, tree in trees.items() if ERRORS & _names(tree)}
    found = {text for tree in relevant.values() for text in _given(tree, _takers(tree, trees))}
    found |= _table(trees[ROOT / "remote" / "tuf.py"])
    found |= {reason_of(error) for error in (OSError(), OneiricError(""), Exception(), ManifestError(""))}
    return found | _documented()


def _names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _positions(tree: ast.AST) -> dict[str, int]:
    """Return the functions that take a reason, with its place among the arguments of a call."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            names = [argument.arg for argument in node.args.args if argument.arg != "self"]
            if "reason" in names:
                found[node.name] = names.index("reason")
    return found


def _takers(tree: ast.AST, trees: dict[Path, ast.Module]) -> dict[str, int]:
    """Return the functions that take a reason, of the module itself and of those that it imports from."""
    found = _positions(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("oneiric."):
            path = ROOT.parent / f"{node.module.replace('.', '/')}.py"
            there = _positions(trees[path]) if path in trees else {}
            found |= {alias.name: there[alias.name] for alias in node.names if alias.name in there}
    return found


def _given(tree: ast.AST, takers: dict[str, int]) -> Iterator[str]:
    """Yield the reasons that stand in calls, and those that are taken where none is given."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
            if name in takers:
                given += node.args[takers[name] : takers[name] + 1]
            elif name not in ERRORS and name != "__init__":
                continue
            yield from _texts(given)
        elif isinstance(node, ast.FunctionDef) and node.name in takers:
            names = [argument.arg for argument in node.args.args][-len(node.args.defaults) or len(node.args.args) :]
            yield from _texts([v for n, v in zip(names, node.args.defaults, strict=True) if n == "reason"])


def _texts(nodes: list[ast.expr]) -> Iterator[str]:
    return (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def _table(tree: ast.AST) -> set[str]:
    """Return the reasons that python-tuf's exceptions stand for."""
    table = next(
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "_REASONS"
    )
    assert isinstance(table, ast.Tuple)
    return {text for row in table.elts if isinstance(row, ast.Tuple) for text in _texts(row.elts[1:2])}


def _documented() -> set[str]:
    """Return the reasons that a FetchError says it has."""
    text = inspect.getdoc(FetchError) or ""
    return set(text.partition("one of ``")[2].partition("``")[0].split())
