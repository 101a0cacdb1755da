"""From settings to what makes a manifest acceptable: the keys are read, wherever they are."""

from __future__ import annotations

from pathlib import Path

from oneiric.core.config import RemoteSettings
from oneiric.core.keys import TrustedKey, parse_key
from oneiric.core.trust import TrustPolicy
from oneiric.errors import ConfigError, ManifestError, Problem

_LIMIT_BYTES = 65_536


def trust_policy(settings: RemoteSettings) -> TrustPolicy:
    """Return the policy of *settings*. Blocks while it reads key files, relative to the working directory.

    Raises ConfigError naming every key that is none.
    """
    problems: list[Problem] = []
    keys: dict[str, TrustedKey] = {}
    for text in filter(None, (settings.public_key, *settings.public_keys)):
        try:
            key = read_key(text)
            keys[key.id] = key
        except (ManifestError, OSError, ValueError) as error:
            what = getattr(error, "strerror", None) or str(error)
            accepted = "base64 of 32 bytes, hex, PEM, or the path of a file with one of these"
            problems.append(Problem("remote.public_key", f"{text[:60]!r} is not a public key: {what}", accepted))
    if keys and settings.signature_threshold > len(keys):
        what = f"signature_threshold is {settings.signature_threshold}, and there are {len(keys)} distinct keys"
        problems.append(Problem("remote.signature_threshold", what, f"at most {len(keys)}"))
    if problems:
        raise ConfigError(*problems)
    return TrustPolicy(
        keys=tuple(keys.values()),
        threshold=settings.signature_threshold,
        require_signature=settings.require_signature,
        max_age=settings.max_age,
        min_version=settings.min_version,
        allowed_factories=settings.allowed_factories,
        allowed_hosts=settings.allowed_hosts,
        allow_plain_http=settings.allow_plain_http,
        max_manifest_bytes=settings.max_manifest_bytes,
        max_artifact_bytes=settings.max_artifact_bytes,
    )


def read_key(text: str) -> TrustedKey:
    """Return the key that *text* is, or that the file *text* names holds."""
    path = Path(text)
    if len(text) < 4096 and "\n" not in text and path.is_file():
        with path.open("rb") as file:
            text = file.read(_LIMIT_BYTES).decode()
    return parse_key(text)
