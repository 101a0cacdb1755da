"""``errors.md``: every error that is raised on purpose, as a tree."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from oneiric.cli.output import OutputError
from oneiric.drills.sandbox import DrillFailedError
from oneiric.errors import OneiricError
from scripts.reference.markdown import ORIGIN, code, paragraphs, table, wrapped

_HEAD = f"""\
{ORIGIN}

# Errors

All that goes wrong on purpose is an `OneiricError`. On the command line it reads `error[<code>]: what, where`, then
`try: <what to type next>`; the control API answers with the same words and the HTTP status. The code is stable. What
to do about each is in [troubleshooting](../runbooks/TROUBLESHOOTING.md#error-codes), and what the exit codes mean
[there too](../runbooks/TROUBLESHOOTING.md#exit-codes). Any other exception is a bug: it has the code `bug` and exit
code 1, and the same command with `--debug` shows where it comes from.
"""


def every_error() -> Iterator[type[OneiricError]]:
    """Yield every error of the package, those below another one after it."""
    assert {OutputError, DrillFailedError}  # are imported, so that they are among the subclasses
    yield from _with_those_below(OneiricError)


def page() -> str:
    """Return the page."""
    found = list(every_error())
    rows = [
        (f"[{code(kind.code)}](#{kind.__name__.lower()})", code(kind.__name__), str(kind.exit_code), str(_status(kind)))
        for kind in found
    ]
    tree = "\n".join(["```text", OneiricError.__name__, *_branches(OneiricError, ""), "```"])
    parts = [_HEAD, tree, "", table(("code", "error", "exit", "HTTP"), rows), ""]
    return "\n".join([*parts, *(_section(kind) for kind in found)])


def _section(kind: type[OneiricError]) -> str:
    facts = f"Code {code(kind.code)}, exit code {kind.exit_code}, HTTP status {_status(kind)}."
    hint = inspect.signature(kind).parameters.get("hint")
    if hint is not None and hint.default:
        facts += f" Its hint, unless another is given, is {code(hint.default)}."
    return "\n\n".join([f"## {kind.__name__}", *paragraphs(kind.__doc__), wrapped(facts)]) + "\n"


def _status(kind: type[OneiricError]) -> int:
    return kind.http_status


def _with_those_below(kind: type[OneiricError]) -> Iterator[type[OneiricError]]:
    yield kind
    for below in _below(kind):
        yield from _with_those_below(below)


def _below(kind: type[OneiricError]) -> list[type[OneiricError]]:
    """Return the errors right below *kind* that the package has, in the order of its code."""
    ours = [below for below in kind.__subclasses__() if below.__module__.startswith("oneiric.")]
    return sorted(ours, key=lambda below: (below.__module__ != OneiricError.__module__, below.__module__))


def _branches(kind: type[OneiricError], indent: str) -> Iterator[str]:
    below = _below(kind)
    for one in below:
        is_last = one is below[-1]
        yield f"{indent}{'└── ' if is_last else '├── '}{one.__name__} [{one.code}]"
        yield from _branches(one, indent + ("    " if is_last else "│   "))
