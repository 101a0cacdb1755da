"""The JSON Schema of a manifest, from the types that read it, for an editor or another tool to check against."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from oneiric.core.domain import DOMAINS
from oneiric.core.entry import Entry
from oneiric.core.manifest import MAX_VERSION, Signature
from oneiric.core.trust import MAX_SIGNATURES

_NAME: Final = {"type": "string", "pattern": r"^(?!.*\.\.)[a-z0-9][a-z0-9._-]{0,127}$"}
_INSTANT: Final = {"type": ["string", "null"], "format": "date-time"}
_FACTORY: Final = r"^(?!.*\.\.)[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*$"
_DESCRIBED: Final = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}


def json_schema() -> dict[str, Any]:
    """Return the schema. Fields it does not name are allowed: they are kept, and never trusted."""
    _, definitions = msgspec.json.schema_components([Entry, Signature], ref_template="#/$defs/{name}")
    definitions["Entry"] = _entry(definitions["Entry"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Oneiric manifest",
        "type": "object",
        "required": ["entries"],
        "properties": {
            "source": {**_NAME, "default": "remote", "description": "Who publishes; the stack of its candidates."},
            "entries": {
                "type": "array",
                "items": {"$ref": "#/$defs/Entry"},
                "description": "What is offered; [] when nothing is.",
            },
            "manifest_version": {
                "type": ["integer", "null"],
                "minimum": 1,
                "maximum": MAX_VERSION,
                "description": "Grows with each publication; a lower one than accepted before is refused.",
            },
            "signed_at": {**_INSTANT, "description": "When it was signed, with its offset from UTC."},
            "expires_at": {**_INSTANT, "description": "From when on it is refused, with its offset from UTC."},
            "signature": {"type": ["string", "null"], "description": "The only signature: base64 of 64 bytes."},
            "signature_algorithm": {
                "type": ["string", "null"],
                "default": "ed25519",
                "description": "What signature is made with: ed25519.",
            },
            "signatures": {
                "type": ["array", "null"],
                "maxItems": MAX_SIGNATURES,
                "description": "Signatures, each base64 of 64 bytes or a mapping of signature, algorithm and key_id.",
                "items": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Signature"}]},
            },
        },
        "$defs": definitions,
    }


def _entry(schema: dict[str, Any]) -> dict[str, Any]:
    fields = {name: value for name, value in schema["properties"].items() if name != "extra"}
    for name, exact in (
        ("domain", {"enum": list(DOMAINS)}),
        ("key", _NAME),
        ("provider", _NAME),
        ("factory", {"type": "string", "pattern": _FACTORY}),
        ("sha256", {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}),
        ("capabilities", {"type": "array", "items": {"anyOf": [{"type": "string"}, _DESCRIBED]}}),
    ):
        fields[name] = {"description": fields[name]["description"], **exact}
    needed = schema["required"]
    # A uri needs a digest, unless it is null, which counts as not given.
    return {
        **schema,
        "description": "One provider's offer to fill a slot.",
        "properties": {name: field if name in needed else _or_null(field) for name, field in fields.items()},
        "if": {"required": ["uri"], "properties": {"uri": {"type": "string"}}},
        "then": {"required": ["sha256"], "properties": {"sha256": {"type": "string"}}},
    }


def _or_null(field: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in field:
        return field
    beside = {name: value for name, value in field.items() if name in ("description", "default")}
    exact = {name: value for name, value in field.items() if name not in beside}
    return {**beside, "anyOf": [exact, {"type": "null"}]}
