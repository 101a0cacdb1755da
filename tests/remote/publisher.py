"""A publisher that shares no code with ours: plain ``json.dumps`` and ``cryptography``."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from oneiric.core.keys import TrustedKey

NOW = datetime(2030, 1, 15, 12, tzinfo=UTC)
URL = "https://manifests.example.com/oneiric/manifest.json"
SIGNATURES = ("signature", "signature_algorithm", "signatures")


def private_key(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


def trusted(private: Ed25519PrivateKey) -> TrustedKey:
    raw = private.public_key().public_bytes_raw()
    return TrustedKey(hashlib.sha256(raw).hexdigest()[:16], raw)


ALICE, BOB, MALLORY = private_key(1), private_key(2), private_key(3)
ALICE_KEY, BOB_KEY, MALLORY_KEY = trusted(ALICE), trusted(BOB), trusted(MALLORY)


def covered(document: dict[str, Any]) -> bytes:
    """Return the bytes that a signature covers."""
    unsigned = {name: value for name, value in document.items() if name not in SIGNATURES}
    return json.dumps(unsigned, sort_keys=True, separators=(",", ":")).encode()


def signature(document: dict[str, Any], private: Ed25519PrivateKey) -> dict[str, str]:
    text = base64.b64encode(private.sign(covered(document))).decode()
    return {"signature": text, "algorithm": "ed25519", "key_id": trusted(private).id}


def signed(document: dict[str, Any], *privates: Ed25519PrivateKey) -> dict[str, Any]:
    return {**document, "signatures": [signature(document, private) for private in privates or (ALICE,)]}


def packed(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def entry(number: int = 1, **changed: Any) -> dict[str, Any]:
    """Return an entry with an artifact beside the manifest; a field set to None is left out."""
    fields = {
        "domain": "adapter",
        "key": f"cache-{number}",
        "provider": "redis",
        "factory": "shop.cache:RedisCache",
        "uri": f"artifacts/cache-{number}.whl",
        "sha256": hashlib.sha256(bytes([number % 256])).hexdigest(),
        "length": 1000 + number,
        "priority": 5,
        "version": "1.0.0",
        "metadata": {"description": "A cache", "pool": 5},
        **changed,
    }
    return {name: value for name, value in fields.items() if value is not None}


def document(*entries: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """Return a manifest that is in order on NOW, but not signed; a field set to None is left out."""
    fields = {
        "source": "shop",
        "entries": list(entries) if entries else [entry()],
        "manifest_version": 5,
        "signed_at": "2030-01-15T11:00:00Z",
        "expires_at": "2030-02-14T11:00:00Z",
        **changed,
    }
    return {name: value for name, value in fields.items() if value is not None}
