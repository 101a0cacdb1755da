"""From settings to what makes a manifest acceptable: the keys are read, wherever they are."""

from __future__ import annotations

from pathlib import Path

from oneiric.core.config import RemoteSettings
from oneiric.core.keys import TrustedKey, parse_key
from oneiric.core.trust import TrustPolicy
from oneiric.core.words import plural
from oneiric.errors import ConfigError, Problem

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
        except ConfigError as error:
            what = f"{_shown(text)} {error.problems[0].what}"
            problems.append(Problem("remote.public_key", what, f"{error.problems[0].accepted}; or a file's path"))
        except (OSError, ValueError) as error:
            what = f"{_shown(text)}: {getattr(error, 'strerror', None) or 'is no text'}"
            problems.append(Problem("remote.public_key", what, "the path of a file that can be read"))
    if keys and settings.signature_threshold > len(keys):
        what = f"signature_threshold is {settings.signature_threshold}, with {plural(len(keys), 'distinct key')}"
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


def _shown(text: str) -> str:
    """Return *text* if it reads like a path; a key, perhaps a private one in the wrong place, is not repeated."""
    if len(text) > 255 or not Path(text).suffix:
        return "a value"
    return repr(text) if Path(text).is_file() else f"{text!r} is no file, and"


def read_key(text: str) -> TrustedKey:
    """Return the key that *text* is, or that the file *text* names holds."""
    path = Path(text)
    if len(text) < 4096 and "\n" not in text and path.is_file():
        with path.open("rb") as file:
            text = file.read(_LIMIT_BYTES).decode()
    return parse_key(text)
