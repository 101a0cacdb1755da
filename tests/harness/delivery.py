"""A project that is delivered to, and the publisher that does it: the real one, on loopback, with a key of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from examples.publisher.press import build_wheel, new_key, public_key, publish
from examples.publisher.serve import Publisher
from oneiric.remote.cache import artifact_name
from oneiric.remote.signing import Signer

MODULE = """
class Cache:
    version = "{version}"
    async def get(self, key):
        return self.version
"""
QUICK = "watch: {debounce: 0.1}\n"


class Upstream:
    """What is published in *directory*: a manifest that offers ``adapter/cache`` by ``remote``, and its wheel."""

    def __init__(self, directory: Path, *, signer: Signer | None = None) -> None:
        self.directory = directory
        self.signer = signer or new_key()
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def manifest(self) -> Path:
        """The published file."""
        return self.directory / "manifest.json"

    def entry(self, version: str = "1.0", *, module: str = MODULE, **changed: Any) -> dict[str, Any]:
        """Build a wheel of that version, and return the entry that offers what is in it."""
        fields = {"domain": "adapter", "key": "cache", "provider": "remote", "factory": "upstream:Cache"}
        files = {"upstream.py": module.format(version=version)}
        return self.pack("upstream", version, files, **{**fields, "priority": 50, **changed})

    def pack(self, name: str, version: str, files: Mapping[str, str], **entry: Any) -> dict[str, Any]:
        """Build a wheel of *files*, and return *entry* with it."""
        return {"version": version, "wheel": build_wheel(self.directory, name, version, files), **entry}

    def publish(self, *entries: Mapping[str, Any], signer: Signer | None = None, **more: Any) -> bytes:
        """Publish *entries*, or version 1.0 of the wheel alone, and return the signed manifest."""
        offered = entries or (self.entry(),)
        return publish(self.directory, *offered, signer=signer or self.signer, source="upstream", **more).read_bytes()

    def withdraw(self) -> bytes:
        """Publish a manifest without entries."""
        return publish(self.directory, signer=self.signer, source="upstream").read_bytes()

    def expire(self) -> bytes:
        """Publish a manifest that has expired."""
        return self.publish(expires_in=timedelta(seconds=-1))

    def settings(self, url: str | None = None, **remote: Any) -> str:
        """Return an ``app.yml`` that trusts what is published here."""
        chosen = {"public_key": public_key(self.signer), **({"manifest_url": url} if url else {}), **remote}
        return f"{QUICK}remote: {json.dumps(chosen)}\n"

    @property
    def artifact(self) -> str:
        """The first artifact that the manifest names, as the cache and the log call it."""
        entry = json.loads(self.manifest.read_bytes())["entries"][0]
        return artifact_name(entry["sha256"], entry["uri"])


@contextmanager
def serving(upstream: Upstream, *, port: int = 0, tls: bool = False) -> Iterator[Publisher]:
    """Serve what is published, for the length of a block; over TLS its authority is in ``authority.pem`` there."""
    with Publisher(upstream.directory, port=port, tls=tls) as publisher:
        (upstream.directory / "authority.pem").write_bytes(publisher.authority)
        yield publisher


def trusting(upstream: Upstream) -> dict[str, str]:
    """Return the environment that makes a process believe the publisher of *upstream*."""
    return {"SSL_CERT_FILE": str(upstream.directory / "authority.pem")}
