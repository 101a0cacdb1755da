"""``manifest.md``: every field of a manifest, from its JSON Schema, and what the product says to one that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from oneiric.core.config import RemoteSettings
from oneiric.core.json_document import DEPTH, JSON_VALUES
from oneiric.core.manifest import MAX_VERSION, SIGNATURE_FIELDS, canonical_bytes, parse_manifest
from oneiric.core.manifest_schema import json_schema
from oneiric.core.trust import CLOCK_SKEW, MAX_SIGNATURES, Floor, TrustPolicy, verify_manifest
from oneiric.core.yaml_document import YAML_VALUES
from oneiric.errors import ManifestError, TrustError
from oneiric.remote.signing import Signer, pack
from scripts.reference.markdown import ORIGIN, Schema, code, default_of, prose, table, value_of

EXAMPLE: Final[Mapping[str, Any]] = {
    "source": "acme",
    "manifest_version": 7,
    "signed_at": "2026-03-01T12:00:00Z",
    "expires_at": "2026-03-31T12:00:00Z",
    "entries": [
        {
            "domain": "adapter",
            "key": "cache",
            "provider": "redis",
            "factory": "acme_cache:Redis",
            "uri": "acme_cache-1.2.0-py3-none-any.whl",
            "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "version": "1.2.0",
        }
    ],
}

_HEAD: Final = f"""\
{ORIGIN}

# Manifest

A manifest lists candidates: who offers to fill which slot, and the artifact that holds it. It is YAML or JSON, and used
only when the keys you trust signed it. It is accepted whole or not at all: what is refused changes nothing, and the
registrations that were there stay. To publish one: [publish a manifest](../how-to/publish-a-manifest.md); by a TUF
repository: [deliver with TUF](../how-to/deliver-with-tuf.md). `oneiric manifest schema` prints the
[JSON Schema](manifest.schema.json).
"""
_FIELDS: Final = """\
A field that is null counts as not given. What the format does not know is kept and never trusted; it is covered by the
signature too. The last column is what is said of a value that is wrong, after the reason; nothing of that manifest is
used.
"""
_SIGNED: Final = """\
## What is signed

The signature is Ed25519, in base64, over these bytes: the mapping of the manifest without
{fields}, as JSON with sorted keys and without spaces, in ASCII,
with all else escaped. In Python:

```python signed
import json

NOT_SIGNED = {names}


def signed_bytes(document: dict) -> bytes:
    unsigned = {{name: value for name, value in document.items() if name not in NOT_SIGNED}}
    return json.dumps(unsigned, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
```

YAML is read with the types of JSON only, so an instant stays text. The example above is signed over:

```json canonical
{canonical}
```

The id of a key is the first 16 hex digits of the SHA-256 of its 32 bytes; the `key_id` of a signature is a name that
proves nothing. A threshold counts distinct keys.
"""
_REFUSED: Final = """\
## What is refused

The checks in their order; the first that fails is the answer. The reason begins the message, and is in the field
`reason` of [`remote-sync-error`](events.md#remote-sync-error). The messages are examples, made by the product.
"""
_LIMITS: Final = "## Limits\n"
_NOW: Final = datetime(2026, 3, 2, tzinfo=UTC)
_URL: Final = "https://oneiric.example.org/manifest.json"
_OTHER: Final = "https://elsewhere.example.net/acme_cache-1.2.0-py3-none-any.whl"
# What a field is set to, to see what is said of it: its own, else the first that is refused.
_WRONG: Final[Mapping[str, Any]] = {
    "source": "Acme!",
    "manifest_version": 0,
    "signed_at": "2026-03-01",
    "expires_at": "2026-03-31",
    "signatures": [{"algorithm": "ed25519"}],
    "domain": "adaptor",
    "key": "Cache",
    "provider": "Redis",
    "factory": "acme_cache",
    "uri": "",
    "sha256": "9f86d0",
    "length": 0,
    "version": "one",
    "requires": ["redis 5"],
    "python_version": "3.12 or newer",
    "timeout_seconds": 0,
}
_ANY: Final = (7, "text")
_LINKS: Final = {"Entry": "[entries](#fields-of-an-entry)", "Signature": "mapping"}


class Refusal(NamedTuple):
    """One check: what it is called, and the error that it raises."""

    reason: str
    error: ManifestError


class _Trial(NamedTuple):
    """A manifest, and what is held against it."""

    content: bytes
    policy: TrustPolicy
    now: datetime = _NOW
    floor: Floor | None = None


def page() -> str:
    """Return the page."""
    schema = json_schema()
    example = json.dumps({**EXAMPLE, "signatures": _signed(EXAMPLE)["signatures"]}, indent=2)
    names = sorted(SIGNATURE_FIELDS)
    signed = _SIGNED.format(
        fields=", ".join(map(code, names)),
        names="{" + ", ".join(f'"{name}"' for name in names) + "}",
        canonical=canonical_bytes(EXAMPLE).decode(),
    )
    parts = [
        _HEAD,
        f"```json manifest\n{example}\n```\n",
        "## Fields\n",
        _FIELDS,
        _table(schema, _wrong_head, marks_signed=True),
        "\n## Fields of an entry\n",
        "All are covered by the signature. Those that say *kept* decide nothing here.\n",
        _table(schema["$defs"]["Entry"], _wrong_entry),
        "",
        signed,
        _REFUSED,
        table(("reason", "error", "exit", "message, and hint"), map(_refusal, refusals())),
        "",
        _LIMITS,
        table(("limit", "value", "beyond it"), limits()),
        "",
    ]
    return "\n".join(parts)


def refusals() -> Iterator[Refusal]:
    """Yield each check of a manifest with the error that it raises, in the order of the checks."""
    for trial in _trials():
        try:
            verify_manifest(trial.content, policy=trial.policy, floor=trial.floor, now=trial.now, url=_URL)
        except ManifestError as error:
            yield Refusal(error.reason, error)
        else:
            raise AssertionError("nothing is refused")


def limits() -> Iterator[tuple[str, str, str]]:
    """Yield each limit with its value and the reason of what is beyond it."""
    remote = RemoteSettings()
    yield "size of a manifest", f"{remote.max_manifest_bytes:,} bytes, `remote.max_manifest_bytes`", "`size`"
    yield "size of an artifact", f"{remote.max_artifact_bytes:,} bytes, `remote.max_artifact_bytes`", "`size`"
    yield "mappings and lists inside one another", f"{DEPTH}", "`malformed`"
    yield "values, in JSON", f"{JSON_VALUES:,}", "`malformed`"
    yield "values, in YAML", f"{YAML_VALUES:,}", "`malformed`; `oneiric manifest pack` writes JSON"
    yield "numbers", "64 bits, finite", "`malformed`"
    yield "`manifest_version`", f"1 to {MAX_VERSION:,}", "`schema`"
    yield "signatures", f"{MAX_SIGNATURES}", "`signature`"
    yield "characters of a name", "128", "`schema`, `entry`"
    yield "`signed_at` ahead of the clock here", f"{CLOCK_SKEW.total_seconds():g} seconds", "`future`"


def fields() -> Mapping[str, tuple[str, ...]]:
    """Return the names of the fields: of the manifest under "", of an entry under "entries[]."."""
    schema = json_schema()
    return {"": tuple(schema["properties"]), "entries[].": tuple(schema["$defs"]["Entry"]["properties"])}


def _signer(seed: int = 1) -> Signer:
    return Signer(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


def _signed(document: Mapping[str, Any], signer: Signer | None = None) -> dict[str, Any]:
    return {**document, "signatures": [(signer or _signer()).signature(canonical_bytes(document))]}


def _trials() -> Iterator[_Trial]:
    """Yield what each check refuses, in the order of the checks."""
    one, two = _signer(), _signer(2)
    good, policy = pack(_signed(EXAMPLE)), TrustPolicy(keys=(one.key,))
    undated = {name: value for name, value in EXAMPLE.items() if name not in ("signed_at", "expires_at")}
    dates = {name: EXAMPLE[name] for name in ("signed_at", "expires_at")}
    unversioned = {name: value for name, value in EXAMPLE.items() if name != "manifest_version"}
    foreign = [{**signature, "algorithm": "rsa"} for signature in _signed(EXAMPLE)["signatures"]]
    floor = Floor(version=7, digest="of other contents", key_ids=(one.key.id,))
    yield _Trial(good, TrustPolicy(keys=(one.key,), max_manifest_bytes=100))
    yield _Trial(b"{}, {}", policy)
    yield _Trial(json.dumps({**EXAMPLE, "manifest_version": 0}).encode(), policy)
    yield _Trial(json.dumps({**EXAMPLE, "signatures": foreign}).encode(), policy)
    yield _Trial(good, TrustPolicy())
    yield _Trial(json.dumps(EXAMPLE).encode(), policy)
    yield _Trial(pack(_signed(EXAMPLE, two)), policy)
    yield _Trial(json.dumps({**_signed(undated), **dates}).encode(), policy)
    yield _Trial(good, TrustPolicy(keys=(one.key, two.key), threshold=2))
    yield _Trial(good, policy, now=_NOW + timedelta(days=60))
    yield _Trial(good, policy, now=_NOW - timedelta(days=2))
    yield _Trial(pack(_signed(unversioned)), policy, floor=floor)
    yield _Trial(pack(_signed({**EXAMPLE, "manifest_version": 6})), policy, floor=floor)
    yield _Trial(good, policy, floor=floor)
    yield _Trial(json.dumps(_signed(_with_entry(key="Cache"))).encode(), policy)
    yield _Trial(pack(_signed(_with_entry(uri=None))), policy)
    yield _Trial(pack(_signed(_with_entry(uri=_OTHER))), policy)


def _with_entry(**fields: Any) -> dict[str, Any]:
    return {**EXAMPLE, "entries": [{**EXAMPLE["entries"][0], **fields}]}


def _refusal(refusal: Refusal) -> tuple[str, str, str, str]:
    error = refusal.error
    hint = f" Try: {prose(error.hint)}." if error.hint else ""
    link = f"[{code(error.code)}](errors.md#{type(error).__name__.lower()})"
    return code(refusal.reason), link, str(error.exit_code), f"{code(error.message)}{hint}"


def _table(schema: Schema, wrong: Callable[[str], str], *, marks_signed: bool = False) -> str:
    """Return the table of fields; *marks_signed* adds whether each is covered by the signature."""
    header, rows = ["field", "says", "value", "when it is wrong"], []
    for name, field in schema["properties"].items():
        default = default_of(field)
        value = value_of(field, lambda kind: _LINKS[kind]).replace(" or null", "")
        more = ["required"] if name in schema["required"] else [f"default {default}"] if default else []
        signed = ["no" if name in SIGNATURE_FIELDS else "yes"] if marks_signed else []
        rows.append((code(name), prose(field["description"]), "; ".join([value, *more]), *signed, wrong(name)))
    return table([*header[:3], *(["signed"] if marks_signed else []), header[3]], rows)


def _wrong_head(name: str) -> str:
    return _first_refusal({**EXAMPLE, name: value} for value in _wrong(name))


def _wrong_entry(name: str) -> str:
    return _first_refusal(_with_entry(**{name: value}) for value in _wrong(name))


def _wrong(name: str) -> tuple[Any, ...]:
    return (_WRONG[name],) if name in _WRONG else _ANY


def _first_refusal(documents: Iterable[Mapping[str, Any]]) -> str:
    for document in documents:
        try:
            parse_manifest(document)
        except TrustError:
            raise
        except ManifestError as error:
            return f"{code(error.reason)}: {code(error.message)}"
    raise AssertionError("nothing that was tried is refused")
