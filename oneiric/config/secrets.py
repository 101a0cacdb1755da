"""Secrets: ``${env:NAME}`` and ``${file:path}`` in provider settings, and what is shown in their place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from oneiric.config.files import read_bounded
from oneiric.config.source import Trail, dotted, quoted
from oneiric.errors import ConfigError, Problem

MASK: Final = "***"
LIMIT_BYTES: Final = 65_536

# Compiled when they are first used: most commands meet none.
_REFERENCE: Final = r"\$\$\{|\$\{(?:(?P<kind>env|file):(?P<name>[^{}\x00]+)\})?"
_VARIABLE: Final = r"[A-Za-z_][A-Za-z0-9_]*"
FORMS: Final = "${env:NAME}, ${file:path}, or $${ for a plain ${"

_REVEALING: Final = (
    r"passw(?:or)?d|passphrase|pwd|secret|token|cookie|credential|auth(?!or(?!i[sz]))"
    r"|(?:api|private|access|signing|encryption)[_-]?key"
)
_SECRET_NAME: Final = rf"(?i){_REVEALING}|^pass$"
# The repetitions are bounded because a text may hold "://" ten thousand times.
_SECRET_PAIR: Final = rf"(?i)((?:{_REVEALING})\w{{0,99}}\s{{0,9}}[=:]\s{{0,9}})(?:(?:basic|bearer)\s{{1,9}})?[^\s;,&]+"
_USERINFO: Final = r"(?<=://)\S{0,999}@"
_QUERY: Final = r"(://[^\s?#]{0,999}[?#])\S+"


class Secret(str):
    """Text whose ``repr`` is ``'***'``; ``parts`` are the secrets it was put together from."""

    __slots__ = ("parts",)
    parts: tuple[str, ...]

    def __new__(cls, text: str, parts: tuple[str, ...] | None = None) -> Secret:  # noqa: D102
        secret = super().__new__(cls, text)
        secret.parts = (text,) if parts is None else parts
        return secret

    def __reduce__(self) -> tuple[Any, ...]:
        return Secret, (str(self), self.parts)

    def __repr__(self) -> str:
        return f"'{MASK}'"


def texts(value: Any, trail: Trail = ()) -> Iterator[tuple[Trail, str]]:
    """Iterate over every text in *value*, at any depth, and the trail that leads to it."""
    if isinstance(value, str):
        yield trail, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts(item, (*trail, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from texts(item, (*trail, index))


def malformed(text: str) -> str:
    """Say what is wrong with the references in *text*; empty when nothing is."""
    for found in re.finditer(_REFERENCE, text):
        if found[0] == "${":
            return "a reference that cannot be read begins with ${"
        if found["kind"] == "env" and not re.fullmatch(_VARIABLE, found["name"]):
            return f"{quoted(found['name'])} is not the name of an environment variable"
    return ""


def resolve_references(value: Any, *, environ: Mapping[str, str], base: Path) -> Any:
    """Return *value* with the secrets that it refers to, each text with one in it being a Secret.

    Args:
        base: the directory that relative paths start from.

    Raises ConfigError naming every reference that leads nowhere.
    """
    problems: list[Problem] = []
    resolved = _resolve(value, (), environ, base, problems)
    if problems:
        raise ConfigError(*problems, hint="provide what the settings refer to, then: oneiric config check")
    return resolved


def secret_values(resolved: Any) -> Iterator[str]:
    """Iterate over the plain secrets in *resolved*, for whoever must keep them out of what is written."""
    for _trail, text in texts(resolved):
        if isinstance(text, Secret):
            yield from filter(None, dict.fromkeys((*text.parts, str(text))))


def masked(value: Any, key: str = "") -> Any:
    """Return *value* for display: what may be a secret, by its look or by the name of its *key*, reads ``***``."""
    if value is not None and re.search(_SECRET_NAME, key):
        return MASK
    if isinstance(value, Mapping):
        return {name: masked(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item, key) for item in value]
    if not isinstance(value, str):
        return value
    if isinstance(value, Secret) or any(found["kind"] for found in re.finditer(_REFERENCE, value)):
        return MASK
    without_login = re.sub(_USERINFO, f"{MASK}@", value)
    return re.sub(_SECRET_PAIR, rf"\1{MASK}", re.sub(_QUERY, rf"\1{MASK}", without_login))


def _resolve(value: Any, trail: Trail, environ: Mapping[str, str], base: Path, problems: list[Problem]) -> Any:
    if isinstance(value, Mapping):
        return {key: _resolve(item, (*trail, key), environ, base, problems) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_resolve(item, (*trail, index), environ, base, problems) for index, item in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value
    where = dotted(trail) or "value"
    if wrong := malformed(value):
        problems.append(Problem(where, wrong, FORMS))
        return value
    parts: list[str] = []

    def substitute(found: re.Match[str]) -> str:
        if not found["kind"]:
            return "${"
        try:
            parts.append(_secret(found["kind"], found["name"], environ, base))
        except LookupError as error:
            problems.append(Problem(where, str(error.args[0])))
            return ""
        return parts[-1]

    text = re.sub(_REFERENCE, substitute, value)
    return Secret(text, tuple(parts)) if parts else text


def _secret(kind: str, name: str, environ: Mapping[str, str], base: Path) -> str:
    """Return what is kept under *name*; raises LookupError with a reason and a remedy when there is nothing."""
    if kind == "env":
        if name not in environ:
            raise LookupError(f"environment variable {name} is not set; try: export {name}=...")
        return environ[name]
    import shlex

    shown = shlex.quote(name) if name.isprintable() else repr(name)
    try:
        text = read_bounded(base / name, LIMIT_BYTES).decode()
    except OSError as error:
        raise LookupError(f"file {shown} cannot be read: {error.strerror}; try: ls -l {shown}") from None
    except UnicodeDecodeError:
        raise LookupError(f"file {shown} is not UTF-8 text; try: file {shown}") from None
    return text.removesuffix("\n").removesuffix("\r")
