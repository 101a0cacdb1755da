"""The publisher's side: keys, signatures, packed manifests, and the files that hold them.

A signature covers the timestamps and the version that signing itself sets. What is written is read again first: nothing
is published that a consumer would read otherwise. Files are replaced whole, never half.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from oneiric.core.document import read_document
from oneiric.core.keys import TrustedKey, decode_base64, key_of
from oneiric.core.manifest import MAX_VERSION, SIGNATURE_FIELDS, canonical_bytes, parse_head, parse_manifest
from oneiric.errors import ManifestError, OneiricError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

LIMIT_BYTES: Final = 1 << 28  # what a publisher may want to pack is more than a consumer accepts unasked
_YAML: Final = (".yaml", ".yml")


class KeyPair(NamedTuple):
    """A new private key and its public key, both as PEM."""

    private: bytes
    public: bytes
    key: TrustedKey


class Signer:
    """Signs with one private key."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.key = key_of(private.public_key().public_bytes_raw())

    def signature(self, signed: bytes, *, key_id: str = "") -> dict[str, str]:
        """Return the signature of *signed* as a manifest holds it; *key_id* is what to call the key."""
        encoded = base64.b64encode(self._private.sign(signed)).decode()
        return {"signature": encoded, "algorithm": "ed25519", "key_id": key_id or self.key.id}


def generate_keys() -> KeyPair:
    """Return a new pair of keys."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    private = Ed25519PrivateKey.generate()
    public = private.public_key()
    return KeyPair(
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        key_of(public.public_bytes_raw()),
    )


def read_signer(path: Path) -> Signer:
    """Return the signer whose private key is in the file at *path*: PEM, or 32 bytes, raw or in hex or base64."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = read_file(path, 1 << 16)
    try:
        if content.lstrip().startswith(b"-----"):
            private: Any = load_pem_private_key(content, password=None)
        else:
            private = Ed25519PrivateKey.from_private_bytes(_raw_key(content))
    except TypeError:
        raise UsageError(f"{path}: the private key is encrypted", hint=f"openssl pkey -in {path} -out KEY") from None
    except (ValueError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise UsageError(f"{path}: not an Ed25519 private key (PEM, raw or hex)", hint="oneiric manifest keygen")
    return Signer(private)


def _raw_key(content: bytes) -> bytes:
    if len(content) == 32:
        return content
    text = content.decode("ascii").strip()
    return bytes.fromhex(text) if len(text) == 64 else decode_base64(text) or b""


def sign(
    document: Mapping[str, Any],
    signer: Signer,
    *,
    now: datetime,
    expires_in: timedelta,
    manifest_version: int,
    key_id: str = "",
) -> dict[str, Any]:
    """Return *document* dated, numbered and signed by *signer* alone; raises ManifestError if it is no manifest."""
    dated = {name: value for name, value in document.items() if name not in SIGNATURE_FIELDS} | {
        "manifest_version": manifest_version,
        "signed_at": now.isoformat(timespec="seconds"),
        "expires_at": (now + expires_in).isoformat(timespec="seconds"),
    }
    parse_manifest(dated)
    return dated | {"signatures": [signer.signature(canonical_bytes(dated), key_id=key_id)]}


def add_signature(document: Mapping[str, Any], signer: Signer, *, key_id: str = "") -> dict[str, Any]:
    """Return *document*, otherwise unchanged, with a signature of *signer* beside those it has."""
    head = parse_manifest(document)
    added = signer.signature(canonical_bytes(document), key_id=key_id)
    for index, one in enumerate(head.signatures):
        if len(decode_base64(one.signature) or b"") != 64:
            raise ManifestError(f"signature {index + 1} cannot be one of Ed25519", hint="sign it without --append")
    kept = [one for one in document.get("signatures") or [] if _text_of(one) != added["signature"]]
    return {**document, "signatures": [*kept, added]}


def _text_of(signature: Any) -> Any:
    return signature["signature"] if isinstance(signature, dict) else signature


def next_version(*documents: Mapping[str, Any]) -> int:
    """Return the version after the highest that one of *documents* has."""
    following = 1 + max((parse_head(document).manifest_version or 0 for document in documents), default=0)
    if following > MAX_VERSION:
        raise ManifestError(f"there is no version after {MAX_VERSION}", hint="--manifest-version N")
    return following


def pack(document: Mapping[str, Any]) -> bytes:
    """Return *document* as canonical JSON, signatures and all, and a line feed."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def render(document: Mapping[str, Any], path: Path) -> bytes:
    """Return *document* as the file at *path* is to hold it: YAML if its name says so, else packed JSON.

    Raises ManifestError when what would be written does not read as *document*.
    """
    if path.suffix.lower() not in _YAML:
        return pack(document)
    import yaml

    content = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120).encode()
    if read_document(content) != document:
        raise ManifestError(f"{path}: YAML cannot say this", hint="give the output a name that ends in .json")
    return content


def read_file(path: Path, limit_bytes: int = LIMIT_BYTES) -> bytes:
    """Return the content of a file that a publisher named."""
    with path.open("rb") as file:
        content = file.read(limit_bytes + 1)
    if len(content) > limit_bytes:
        raise OneiricError(f"{path}: more than {limit_bytes:,} bytes", hint="is it the right file?")
    return content


def write_file(path: Path, content: bytes) -> None:
    """Replace the file at *path*, or the one that a link there leads to, by *content* at once; a file keeps its mode.

    Raises OSError, and then leaves what was there.
    """
    target = Path(os.path.realpath(path))
    mode = None
    with suppress(FileNotFoundError):
        mode = target.stat().st_mode & 0o777
    _replace(target, content, mode=mode)


def write_keys(pair: KeyPair, private: Path, public: Path, *, force: bool) -> None:
    """Write a pair of keys, the private one for the owner alone. Raises UsageError rather than replace a key."""
    if os.path.realpath(private) == os.path.realpath(public):
        raise UsageError(f"{private}: named for both keys", hint="two files: --private-key F --public-key G")
    there = [path for path in (private, public) if os.path.lexists(path)]
    if there and not force:
        raise UsageError(f"{there[0]}: is there already", hint="another name; or --force, and that key is lost")
    _replace(private, pair.private, mode=0o600)
    _replace(public, pair.public, mode=None)


def _replace(target: Path, content: bytes, *, mode: int | None) -> None:
    """Write beside *target*, bring it to the disk, and only then give it the name."""
    fresh = target.with_name(f".{target.name[:200]}.{token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(fresh, flags, 0o666 if mode is None else 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        fresh.replace(target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
