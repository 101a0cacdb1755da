"""Ed25519 public keys as people write them. A key's id is computed from the key and never taken from anybody's word."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Any, Final, NamedTuple

from oneiric.errors import ConfigError, Problem

_ACCEPTED: Final = "base64 of the raw 32 bytes, 64 hex digits, or PEM"
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_PRIME: Final = (1 << 255) - 19
_ORDER_8: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
# Points for which a signature can be made up without a private key, by their y; all zeros, a likely filler, is one.
_WEAK: Final = frozenset({0, 1, _PRIME - 1, _ORDER_8, _PRIME - _ORDER_8})


class TrustedKey(NamedTuple):
    """A public key that may sign manifests: its id, and its 32 bytes."""

    id: str
    raw: bytes


def parse_key(text: str, *, where: str = "public key") -> TrustedKey:
    """Return the key that *text* is: base64, hex or PEM.

    Args:
        where: what to call the place it stands in, should it be none.

    Raises ConfigError, whose message does not repeat *text*: it may be a private key in the wrong place.
    """
    text = text.strip()
    if "PRIVATE KEY" in text:
        raise _refusal(where, "is a private key, which belongs to the publisher alone")
    raw = _from_pem(text, where) if text.startswith("-----") else _from_line(text)
    if raw is None or len(raw) != 32:
        raise _refusal(where, "is not an Ed25519 public key")
    if int.from_bytes(raw, "little") % (1 << 255) % _PRIME in _WEAK:
        raise _refusal(where, "is a key whose signatures anybody can make up")
    return key_of(raw)


def key_of(raw: bytes) -> TrustedKey:
    """Return the key of 32 *raw* bytes with its id."""
    return TrustedKey(hashlib.sha256(raw).hexdigest()[:16], raw)


def verifies(key: TrustedKey, signature: bytes, signed: bytes) -> bool:
    """Say whether *signature* is the key's over exactly the bytes *signed*."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, signed)
    except (InvalidSignature, ValueError):
        return False
    return True


def decode_base64(text: str) -> bytes | None:
    """Return the bytes that *text* is the one and only base64 of, else None."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if base64.b64encode(raw).decode() == text else None


def _from_line(text: str) -> bytes | None:
    return bytes.fromhex(text) if _HEX.fullmatch(text) else decode_base64(text)


def _from_pem(text: str, where: str) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key: Any = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise _refusal(where, "is not a PEM public key") from None
    if not isinstance(key, Ed25519PublicKey):
        raise _refusal(where, "is a key of another kind than Ed25519")
    return key.public_bytes_raw()


def _refusal(where: str, what: str) -> ConfigError:
    return ConfigError(
        Problem(where, what, _ACCEPTED), hint="oneiric manifest keygen, or ask the publisher for the key"
    )
