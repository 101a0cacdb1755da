"""Settings for people and editors: what is in force and where it was set, and the JSON Schema of the files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

from oneiric.config.secrets import masked
from oneiric.config.source import dotted
from oneiric.core.config import FILES, CandidateSettings, DomainSettings, Settings
from oneiric.core.domain import DOMAINS
from oneiric.core.resolution import STACK_ORDER
from oneiric.errors import UsageError

DEFAULT: Final = "default"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class Row(NamedTuple):
    """One setting in force: its dotted path, its value without secrets, and where it was set."""

    path: str
    value: Any
    origin: str


def effective(settings: Settings) -> list[Row]:
    """Return every setting in force, defaults included; what may be a secret reads ``***``."""
    rows = [*_app(settings.app, ""), ("stack_order", settings.stack_order)]
    origins = {"stack_order": STACK_ORDER, **settings.origins} if settings.stack_order else settings.origins
    for domain in DOMAINS.values():
        rows += _domain(settings.domains[domain.name], domain.plural)
    return [Row(path, masked(value), origins.get(path, DEFAULT)) for path, value in rows]


def json_schema(file: str | None = None) -> dict[str, Any]:
    """Return the JSON Schema of one settings file, or of all of them as an object with a property for each file.

    Raises UsageError when there is no such file.
    """
    if file is not None and file not in FILES:
        raise UsageError(f"there is no settings file {file!r}", hint=f"use one of: {', '.join(FILES)}")
    names = [file] if file is not None else list(FILES)
    roots, definitions = msgspec.json.schema_components([FILES[name] for name in names], ref_template="#/$defs/{name}")
    if file is not None:
        body = {"title": f"settings/{file}", **roots[0]}
    else:
        files = {name: {"title": f"settings/{name}", **root} for name, root in zip(names, roots, strict=True)}
        body = {"title": "settings/", "type": "object", "properties": files, "additionalProperties": False}
    return {"$schema": _DIALECT, "$id": f"urn:oneiric:settings:{file or 'all'}", **body, "$defs": definitions}


def _app(section: msgspec.Struct, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in msgspec.structs.asdict(section).items():
        if isinstance(value, msgspec.Struct):
            yield from _app(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _domain(chosen: DomainSettings, plural: str) -> Iterator[tuple[str, Any]]:
    for key, provider in chosen.selections.items():
        yield dotted((plural, "selections", key)), provider
    for index, offer in enumerate(chosen.candidates):
        yield dotted((plural, "candidates", index)), _declared(offer)
    for key, names in chosen.capabilities.items():
        yield dotted((plural, "capabilities", key)), names
    for key, slot in chosen.slots.items():
        for name, value in msgspec.structs.asdict(slot).items():
            yield dotted((plural, "slots", key, name)), value
    for provider, values in chosen.provider_settings.items():
        for name, value in values.items():
            yield dotted((plural, "provider_settings", provider, name)), masked(value, name)


def _declared(offer: CandidateSettings) -> dict[str, Any]:
    """Return the fields of *offer* that differ from their defaults."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(offer) if not field.required}
    values = msgspec.structs.asdict(offer)
    return {name: value for name, value in values.items() if name not in defaults or value not in (defaults[name], {})}
