"""An artifact: the file a manifest names, imported from the bytes whose digest matched, and from nothing else.

Nothing is written, extracted or read again: what was hashed is what is unpacked, compiled and run.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import threading
from typing import Any, Final

from oneiric.errors import ManifestError, TrustError
from oneiric.remote.modules import Space
from oneiric.remote.spaces import SPACES
from oneiric.remote.wheel import printable, read_artifact

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_DOTTED: Final = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*"
_FACTORY: Final = re.compile(rf"({_DOTTED}):({_DOTTED})")


class DigestError(TrustError):
    """The bytes of an artifact are not those the manifest names: ``expected`` and ``actual`` are their digests."""

    def __init__(self, message: str, *, expected: str, actual: str, hint: str = "") -> None:
        super().__init__(message, reason="digest", hint=hint)
        self.expected = expected
        self.actual = actual


class Artifact:
    """A verified artifact, open for loading what a manifest names in it, until it is released.

    All artifacts with one digest share their modules, which stay until the last of them is released.
    """

    def __init__(self, name: str, space: Space) -> None:
        self.name = name
        self._space: Space | None = space
        self._lock = threading.Lock()

    @classmethod
    def open(cls, name: str, content: bytes, *, sha256: str, length: int | None = None) -> Artifact:
        """Verify *content* and open it; nothing of it is executed yet. Blocks while it hashes and unpacks.

        Args:
            name: its file name as published, ending in ``.whl`` or ``.py``.
            sha256: the digest the manifest gives, 64 hexadecimal digits.
            length: the number of bytes the manifest gives, if it does.

        Raises:
            DigestError: the digest is another one.
            TrustError: the digest matches and *length* does not.
            ManifestError: it is not an artifact we can import.
        """
        content = bytes(content)  # what is hashed cannot change under us, whatever kind of buffer it came in
        digest = _verified(name, content, sha256.lower(), length)
        key = f"sha256_{digest[:16]}"  # an identifier, as each part of a module's name should be
        if name.endswith(".py"):
            key += f"_{name.removesuffix('.py')}"  # the name of a single module is not in the digest
        return cls(name, SPACES.open(name, key, digest, lambda: read_artifact(name, content)))

    def load(self, factory: str) -> Any:
        """Import the module that *factory*, ``module:attribute``, names and return the attribute.

        Raises:
            TrustError: it names something outside the artifact, or that was not defined in that module.
            ImportError: the attribute does not exist, or the artifact was released.
            Exception: whatever the module raises when it is imported.
        """
        space = self._space
        if space is None:
            raise ImportError(f"artifact {self.name} was released: it can import nothing more")
        matched = _FACTORY.fullmatch(factory)
        if matched is None or matched[1] not in space.modules:
            known = ", ".join(space.modules[:10]) or "none"
            raise self._refusal(f"{printable(factory)} names no module of it", f"its modules: {known}")
        with space:
            found: Any = importlib.import_module(space.private(matched[1]))
        for attribute in matched[2].split("."):
            try:
                found = getattr(found, attribute)
            except AttributeError:
                raise ImportError(f"module {matched[1]!r} of artifact {self.name} has no {matched[2]!r}") from None
            if getattr(found, "__module__", None) != space.private(matched[1]):
                what = f"{factory} is not a class or function defined in {matched[1]}"
                raise self._refusal(what, "name the module that defines it")
        return found

    def release(self) -> None:
        """Let go of the artifact's modules, which are unloaded when no other artifact or import needs them.

        What was loaded goes on working, but can import nothing more of the artifact: release it after the last
        instance is closed. Safe to call again, and from any thread.
        """
        with self._lock:
            space, self._space = self._space, None
        if space is not None:
            SPACES.leave(space)

    def _refusal(self, what: str, hint: str) -> TrustError:
        return TrustError(f"artifact {self.name}: factory {what}", reason="factory", hint=hint)


def _verified(name: str, content: bytes, expected: str, length: int | None) -> str:
    """Return the digest of *content* once it is known to be the expected one."""
    if not _SHA256.fullmatch(expected):
        raise ManifestError(f"artifact {printable(name)}: sha256 must be 64 hexadecimal digits", reason="digest")
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        what = f"SHA-256 is {actual} ({len(content):,} bytes), the manifest says {expected}"
        hint = "oneiric remote-sync, which fetches it again; if it repeats, ask the publisher what was published"
        raise DigestError(f"artifact {printable(name)}: {what}", expected=expected, actual=actual, hint=hint)
    if length is not None and len(content) != length:
        what = f"it has {len(content):,} bytes, the manifest says {length:,}"
        raise TrustError(f"artifact {printable(name)}: {what}", reason="length", hint="correct length in the manifest")
    return actual
