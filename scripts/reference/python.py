"""``python.md``: the names that ``oneiric`` and ``oneiric.testing`` export, as the code declares and describes them."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

import oneiric
from oneiric import testing
from scripts.reference.markdown import ORIGIN, code, paragraphs, prose, table

_HEAD: Final = f"""\
{ORIGIN}

# Python

What a program imports: `oneiric` has the engine, `oneiric.testing` the parts of tests. To use them:
[embed](../how-to/embed.md).
"""
_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Name(NamedTuple):
    """An exported name: where it is declared, how, and its docstring."""

    name: str
    lines: tuple[str, ...]
    node: ast.stmt
    docstring: str


def exported() -> Mapping[ModuleType, tuple[Name, ...]]:
    """Return what each module exports."""
    own = tuple(name for name in _declarations(testing) if not name.startswith("_"))
    return {module: tuple(_find(module, name) for name in names) for module, names in _listed(own).items()}


def page() -> str:
    """Return the page."""
    parts = [_HEAD]
    seen: Counter[str] = Counter()  # headings that differ in case only are told apart by a number in their anchors
    for module, names in exported().items():
        rows = [(f"[{code(one.name)}](#{_anchor(one.name, seen)})", _first(one.docstring)) for one in names]
        parts += [f"## {module.__name__}\n", *(f"{text}\n" for text in paragraphs(module.__doc__))]
        parts += [table(("name", "is"), rows), "", *map(_section, names)]
    return "\n".join(parts)


def _anchor(name: str, seen: Counter[str]) -> str:
    seen[name.lower()] += 1
    count = seen[name.lower()] - 1
    return f"{name.lower()}-{count}" if count else name.lower()


def _listed(own: tuple[str, ...]) -> Mapping[ModuleType, tuple[str, ...]]:
    return {oneiric: tuple(oneiric.__all__), testing: own}


def _section(one: Name) -> str:
    parts = [f"### {one.name}", f"```python\n{_declared(one)}\n```", *paragraphs(one.docstring)]
    if isinstance(one.node, ast.ClassDef):
        for member in one.node.body:
            docstring = ast.get_docstring(member) if isinstance(member, _Function) else None
            if isinstance(member, _Function) and docstring and not member.name.startswith("_"):
                parts += _member(one, member, docstring)
    return "\n\n".join(parts) + "\n"


def _member(one: Name, member: _Function, docstring: str) -> Iterator[str]:
    decorators = [ast.unparse(each) for each in member.decorator_list]
    if "property" in decorators:
        returns = f": {ast.unparse(member.returns)}" if member.returns else ""
        yield f"#### {one.name}.{member.name}"
        yield f"```python\n{member.name}{returns}\n```"
    else:
        above = "".join(f"@{each}\n" for each in decorators)
        yield f"#### {one.name}.{member.name}()"
        yield f"```python\n{above}{_head(one.lines, member)}\n```"
    yield from paragraphs(docstring)


def _declared(one: Name) -> str:
    """Return how *one* is declared: a function's head, a class with its fields or its constructor, a value's line."""
    if isinstance(one.node, _Function):
        return _head(one.lines, one.node)
    if not isinstance(one.node, ast.ClassDef):
        return _text(one.lines, one.node)
    bases = ", ".join(ast.unparse(base) for base in one.node.bases)
    inside = [
        _text(one.lines, each) for each in one.node.body if isinstance(each, ast.AnnAssign) and _is_public(each.target)
    ]
    is_opened = any(isinstance(each, _Function) and each.name == "open" for each in one.node.body)
    if not is_opened:
        constructors = (each for each in one.node.body if isinstance(each, _Function))
        inside += [_head(one.lines, each) for each in constructors if each.name in ("__init__", "__new__", "__call__")]
    body = textwrap.indent("\n".join(inside), "    ")
    return f"class {one.name}{f'({bases})' if bases else ''}" + (f":\n{body}" if body else "")


def _is_public(target: ast.expr) -> bool:
    return isinstance(target, ast.Name) and not target.id.startswith("_")


def _head(lines: tuple[str, ...], function: _Function) -> str:
    """Return a function as it is written, up to its body."""
    head = "\n".join(lines[function.lineno - 1 : function.body[0].lineno - 1])
    return textwrap.dedent(head).rstrip().removesuffix(":")


def _text(lines: tuple[str, ...], node: ast.stmt) -> str:
    return textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))


def _first(docstring: str) -> str:
    return prose(docstring.partition("\n\n")[0])


def _find(module: ModuleType, name: str) -> Name:
    home = sys.modules[getattr(getattr(module, name), "__module__", None) or module.__name__]
    return _declarations(home if name in _declarations(home) else module)[name]


@cache
def _declarations(module: ModuleType) -> Mapping[str, Name]:
    """Return what *module* declares: its functions, its classes, and the values that have a docstring below them."""
    text = Path(inspect.getfile(module)).read_text(encoding="utf-8")
    lines, body = tuple(text.splitlines()), ast.parse(text).body
    found: dict[str, Name] = {}
    for node, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(node, ast.ClassDef | _Function):
            found[node.name] = Name(node.name, lines, node, ast.get_docstring(node) or "")
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and isinstance(after.value, ast.Constant):
                found[target.id] = Name(target.id, lines, node, inspect.cleandoc(str(after.value.value)))
    return found
