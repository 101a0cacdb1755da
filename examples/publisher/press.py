"""Make what a publisher publishes: keys, wheels and a signed manifest."""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from oneiric.remote.signing import Signer, next_version, pack, sign, write_file


def new_key() -> Signer:
    """Return the signer of a new private key."""
    return Signer(Ed25519PrivateKey.generate())


def public_key(signer: Signer) -> str:
    """Return what belongs into ``remote.public_key``."""
    return base64.b64encode(signer.key.raw).decode()


def build_wheel(directory: Path, name: str, version: str, files: Mapping[str, str]) -> Path:
    """Write a pure-Python wheel with *files*, by their paths inside it, and return its path. Same input, same bytes."""
    stem = f"{name.replace('-', '_')}-{version}"
    described = f"{stem}.dist-info"
    content = {
        **files,
        f"{described}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{described}/WHEEL": "Wheel-Version: 1.0\nGenerator: press\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{described}/RECORD"
    rows = [f"{path},sha256={_record_digest(text)},{len(text.encode())}\n" for path, text in content.items()]
    content[record] = "".join([*rows, f"{record},,\n"])
    wheel = directory / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in content.items():
            archive.writestr(zipfile.ZipInfo(path), text, zipfile.ZIP_DEFLATED)
    return wheel


def _record_digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def publish(
    directory: Path,
    *entries: Mapping[str, Any],
    signer: Signer,
    source: str = "publisher",
    version: int | None = None,
    expires_in: timedelta = timedelta(days=30),
) -> Path:
    """Write a signed ``manifest.json`` that lists *entries*, and return its path.

    Args:
        entries: as in a manifest, except that ``wheel``, a path below *directory*, stands for the three fields that
            follow from it: ``uri``, ``sha256`` and ``length``.
        version: the manifest's; one more than that of the manifest that is there if omitted.
    """
    manifest = directory / "manifest.json"
    if version is None:
        version = next_version(*([json.loads(manifest.read_bytes())] if manifest.exists() else []))
    document = {"source": source, "entries": [_entry(directory, entry) for entry in entries]}
    signed = sign(document, signer, now=datetime.now(UTC), expires_in=expires_in, manifest_version=version)
    write_file(manifest, pack(signed))
    return manifest


def _entry(directory: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    fields = dict(entry)
    if (wheel := fields.pop("wheel", None)) is not None:
        content = Path(wheel).read_bytes()
        fields["uri"] = Path(wheel).relative_to(directory).as_posix()
        fields["sha256"], fields["length"] = hashlib.sha256(content).hexdigest(), len(content)
    return fields
