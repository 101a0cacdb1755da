"""Settings from the environment and from flags, in the shape that a settings file would give them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import inspect as shapes

from oneiric.config.reader import decode, parse
from oneiric.config.shape import REFUSED, bare
from oneiric.config.source import Source, Trail, quoted, suggestion
from oneiric.core.config import ENV_SECTIONS, FILES, RemoteSettings

PREFIX: Final = "ONEIRIC_"
PLATFORM_PORT: Final = "PORT"
_PLAIN: Final = ("CACHE_DIR", "STATE_DIR")
_FLAGS: Final = MappingProxyType({"remote.manifest_url": "--manifest", "watch.enabled": "--no-watch"})


def _longer(value: Any, known: Any) -> bool:
    return not set(value) <= set(known)


# Whether another value takes strictness away: (from the environment, what it would replace).
_WEAKENS: Final[Mapping[str, Callable[[Any, Any], bool]]] = MappingProxyType(
    {
        "require_signature": lambda value, _: not value,
        "allow_plain_http": lambda value, _: value,
        "signature_threshold": lambda value, known: value < known,
        "max_age": lambda value, known: value is None or (known is not None and value > known),
        "max_stale": lambda value, known: value > known,
        "min_version": lambda value, known: known is not None and (value is None or value < known),
        **dict.fromkeys(("public_key", "tuf_root"), lambda value, _: bool(value)),
        **dict.fromkeys(("public_keys", "allowed_factories", "allowed_hosts"), _longer),
    }
)


class Layer(NamedTuple):
    """Values for one settings file, not yet compared with the settings tree, and where they come from."""

    file: str
    value: Any
    source: Source


def from_platform(environ: Mapping[str, str]) -> Iterator[Layer]:
    """Iterate over what a platform that runs containers sets: ``PORT``, which it wants served on every address."""
    if port := environ.get(PLATFORM_PORT):
        source = Source(PLATFORM_PORT, has_positions=False)
        yield Layer("app.yml", {"api": {"http": f"0.0.0.0:{port}"}}, source)


def from_environment(environ: Mapping[str, str]) -> Iterator[Layer]:
    """Iterate over what ``ONEIRIC_<SECTION>__<KEY>`` and the plain names set. An empty variable counts as not set.

    A variable for a text setting is taken as it is; any other is read as YAML. Further names that begin with
    ``ONEIRIC_`` are not ours: Kubernetes sets ``ONEIRIC_PORT`` and the like for a service of that name.
    """
    for variable in sorted(environ):
        section, double, key = variable.removeprefix(PREFIX).partition("__")
        if not variable.startswith(PREFIX) or not environ[variable]:
            continue
        source = Source(variable, has_positions=False)
        if not double:
            if section in _PLAIN:
                yield _layer("app.yml", (section.lower(),), environ[variable], source)
        elif section not in ENV_SECTIONS:
            what = f"unknown section {quoted(section)}{suggestion(section.upper(), ENV_SECTIONS)}"
            source.refuse((), what, f"accepted: {', '.join(ENV_SECTIONS)}")
            yield Layer("app.yml", {}, source)
        elif key != key.upper():
            source.refuse((), f"{quoted(key)} is not in capitals", f"{PREFIX}{section}__{key.upper()}")
            yield Layer("app.yml", {}, source)
        else:
            file, name = ENV_SECTIONS[section]
            yield _layer(file, (name, key.lower()) if name else (key.lower(),), environ[variable], source)


def from_flags(flags: Mapping[str, Any]) -> Iterator[Layer]:
    """Iterate over what command-line flags set, by dotted path; a flag that is None was not given."""
    for path, value in flags.items():
        if value is not None:
            name = path.rpartition(".")[2].replace("_", "-")
            source = Source(_FLAGS.get(path, f"--{name}"), has_positions=False)
            plain = os.fspath(value) if isinstance(value, os.PathLike) else value
            yield Layer("app.yml", _nest(tuple(path.split(".")), plain), source)


def refuse_weakening(shaped: Any, below: Mapping[str, Any], source: Source) -> None:
    """Note in *source* where *shaped*, from the environment, would take strictness away from what is *below* it.

    Both are values for ``app.yml`` as they are after ``conform``; what is not set below has its default.
    """
    known = {**msgspec.structs.asdict(RemoteSettings()), **_remote(below)}
    for name, value in _remote(shaped).items():
        weakens = _WEAKENS.get(name)
        if weakens is None or source.problems or known[name] is REFUSED or value == known[name]:
            continue
        if weakens(value, known[name]):
            what = "the environment may make remote stricter, never more lenient"
            source.refuse(("remote", name), what, f"set remote.{name} in settings/app.yml")


def _remote(values: Any) -> Mapping[str, Any]:
    section = values.get("remote") if isinstance(values, dict) else None
    return section if isinstance(section, dict) else {}


def _layer(file: str, trail: Trail, raw: str, source: Source) -> Layer:
    text = decode(raw.encode("utf-8", "surrogatepass"), source)
    if text is None:
        return Layer(file, {}, source)
    kind = _kind_at(shapes.type_info(FILES[file]), trail)
    if _is_text(kind):
        return Layer(file, _nest(trail, text), source)
    value = parse(text, source)
    source.places = {(*trail, *inner): place for inner, place in source.places.items()}
    return Layer(file, {} if source.problems else _nest(trail, value), source)


def _kind_at(kind: shapes.Type | None, trail: Trail) -> shapes.Type | None:
    for step in trail:
        fields = kind.fields if isinstance(kind, shapes.StructType) else ()
        kind = next((bare(field.type) for field in fields if field.name == step), None)
    return kind


def _is_text(kind: shapes.Type | None) -> bool:
    if isinstance(kind, shapes.UnionType):
        return _is_text(kind.types[0])
    return isinstance(kind, shapes.StrType | shapes.LiteralType)


def _nest(trail: Trail, value: Any) -> Any:
    for step in reversed(trail):
        value = {step: value}
    return value
