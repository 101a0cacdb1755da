"""A TUF repository in memory, made with python-tuf's metadata API, and served over loopback as told."""

from __future__ import annotations

import json
from collections.abc import Iterable
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from tests.harness.servers import Answer, Connection, respond
from tests.remote.wheels import digest, wheel

ROLES: Final = ("root", "timestamp", "snapshot", "targets")
LATER: Final = timedelta(days=7)
WHEEL: Final = "artifacts/shop-1.0-py3-none-any.whl"


def manifest(*entries: dict[str, Any], version: int | None = 1, **changed: Any) -> bytes:
    """Return a manifest without signatures."""
    fields = {"source": "shop", "manifest_version": version, "entries": list(entries), **changed}
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


def shop(answer: int = 1) -> bytes:
    """Return a wheel whose factory gives *answer*."""
    return wheel({"shop/__init__.py": f"def cache() -> int:\n    return {answer}\n"})


def entry(content: bytes, uri: str = WHEEL, **changed: Any) -> dict[str, Any]:
    """Return the entry of an artifact."""
    return {
        "domain": "adapter",
        "key": "cache",
        "provider": "shop",
        "factory": "shop:cache",
        "uri": uri,
        "sha256": digest(content),
        "length": len(content),
        **changed,
    }


class Repository:
    """Publishes; ``files`` is what a web server would have, by path, and may be tampered with."""

    def __init__(self, *, consistent: bool = True) -> None:
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, Answer] = {}
        self.signers = {role: [CryptoSigner.generate_ed25519()] for role in ROLES}
        self.root = Metadata(Root(expires=datetime.now(UTC) + LATER, consistent_snapshot=consistent))
        self.targets = Metadata(Targets())
        self.snapshot = Metadata(Snapshot())
        self.timestamp = Metadata(Timestamp())
        for role in ROLES:
            self.root.signed.add_key(self.signers[role][0].public_key, role)
        self.sign_root(self.signers["root"])
        self.pinned = self.files["metadata/1.root.json"]

    def sign_root(self, signers: Iterable[CryptoSigner]) -> None:
        """Publish the root as it is now."""
        self.root.signatures.clear()
        for signer in signers:
            self.root.sign(signer, append=True)
        self.files[f"metadata/{self.root.signed.version}.root.json"] = self.root.to_bytes()

    def rotate(self, role: str) -> None:
        """Replace the key of *role* in a new version of the root, signed by the old and the new root keys."""
        old, new = self.signers[role][0], CryptoSigner.generate_ed25519()
        before = list(self.signers["root"])
        self.root.signed.revoke_key(old.public_key.keyid, role)
        self.root.signed.add_key(new.public_key, role)
        self.signers[role] = [new]
        self.root.signed.version += 1
        self.sign_root(dict.fromkeys([*before, *self.signers["root"]]))

    def release(self, targets: dict[str, bytes], *, lasts: timedelta = LATER) -> None:
        """Publish *targets* as all there is."""
        self.targets.signed.targets = {}
        for name, content in targets.items():
            target = TargetFile.from_data(name, content, ["sha256"])
            self.targets.signed.targets[name] = target
            paths = target.get_prefixed_paths() if self.root.signed.consistent_snapshot else [name]
            self.files |= {f"targets/{path}": content for path in paths}
        self.sign_targets(lasts=lasts)

    def delegate(self, targets: dict[str, bytes], *, role: str = "others") -> None:
        """Have *role* say what *targets* are."""
        signer = CryptoSigner.generate_ed25519()
        delegation = DelegatedRole(role, [], 1, terminating=True, paths=list(targets))
        self.targets.signed.delegations = Delegations({}, {role: delegation})
        self.targets.signed.add_key(signer.public_key, role)
        delegated = Metadata(Targets(version=1, expires=datetime.now(UTC) + LATER))
        for name, content in targets.items():
            target = TargetFile.from_data(name, content, ["sha256"])
            delegated.signed.targets[name] = target
            self.files[f"targets/{target.get_prefixed_paths()[0]}"] = content
        delegated.sign(signer)
        self.files[f"metadata/1.{quote(role, safe='')}.json"] = delegated.to_bytes()
        self.snapshot.signed.meta[f"{role}.json"] = MetaFile(1)
        self.sign_targets()

    def sign_targets(self, *, lasts: timedelta = LATER) -> None:
        """Publish new versions of targets, snapshot and timestamp."""
        self._sign("targets", self.targets, lasts)
        self.snapshot.signed.meta["targets.json"] = MetaFile(self.targets.signed.version)
        self._sign("snapshot", self.snapshot, lasts)
        self.sign_timestamp(lasts=lasts)

    def sign_timestamp(self, *, lasts: timedelta = LATER) -> None:
        """Publish a new version of the timestamp."""
        self.timestamp.signed.snapshot_meta = MetaFile(self.snapshot.signed.version)
        self._sign("timestamp", self.timestamp, lasts)

    def _sign(self, role: str, metadata: Metadata[Any], lasts: timedelta) -> None:
        metadata.signed.version += 1
        metadata.signed.expires = datetime.now(UTC).replace(microsecond=0) + lasts
        metadata.signatures.clear()
        for signer in self.signers[role]:
            metadata.sign(signer, append=True)
        is_versioned = role != "timestamp" and self.root.signed.consistent_snapshot
        name = f"{metadata.signed.version}.{role}" if is_versioned else role
        self.files[f"metadata/{name}.json"] = metadata.to_bytes()

    def was(self) -> dict[str, bytes]:
        """Return what is published now, for a replay."""
        return deepcopy(self.files)

    def answer(self, connection: Connection) -> None:
        """Answer as a web server with ``files`` below ``/repo/`` would, but for the paths in ``answers``."""
        path = connection.request.target.removeprefix("/repo/")
        content = self.files.get(path)
        otherwise = respond(404) if content is None else respond(200, content)
        self.answers.get(path, otherwise)(connection)
