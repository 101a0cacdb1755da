"""A publisher of signed manifests on loopback, that a drill may stop, slow down or tamper with."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from oneiric.remote.signing import Signer, pack, sign, write_file

MANIFEST: Final = "manifest.json"
_MODULE: Final = '''"""A cache as a publisher ships it."""


class Cache:
    """Version {version} of {name}."""

    async def work(self):
        return "{name} {version}"
'''


class Publisher:
    """Serves *directory* at ``url`` while it is started, and signs what it publishes there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.version = 0
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.signer = new_signer()
        self.start()

    @property
    def url(self) -> str:
        """Where the manifest is."""
        return f"http://127.0.0.1:{self._port}/{MANIFEST}"

    @property
    def public_key(self) -> str:
        """What consumers set as ``remote.public_key``."""
        return base64.b64encode(self.signer.key.raw).decode()

    def start(self) -> None:
        """Serve, on the same port as before."""
        handler = partial(_Handler, directory=str(self.directory))
        self._server = _Server(("127.0.0.1", self._port), handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Serve no more; who connects is refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def publish(self, *names: str) -> None:
        """Publish a new version: one artifact and one provider of ``adapter/NAME`` for each of *names*."""
        self.version += 1
        self._sign([self._entry(name) for name in names])

    def publish_again(self) -> None:
        """Publish the same entries as a new version, signed with the key there is now."""
        self.version += 1
        self._sign(json.loads((self.directory / MANIFEST).read_bytes())["entries"])

    def change(self, **fields: Any) -> None:
        """Change *fields* of the manifest that is published and leave its signature as it was."""
        path = self.directory / MANIFEST
        write_file(path, pack({**json.loads(path.read_bytes()), **fields}))

    def artifact(self, name: str) -> Path:
        """Return the file of the artifact that is published for *name*."""
        return self.directory / f"{name}_v{self.version}.py"

    def _entry(self, name: str) -> Mapping[str, Any]:
        content = _MODULE.format(name=name, version=self.version).encode()
        write_file(self.artifact(name), content)
        return {
            "domain": "adapter",
            "key": name,
            "provider": "published",
            "factory": f"{self.artifact(name).stem}:Cache",
            "uri": self.artifact(name).name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "length": len(content),
            "version": f"{self.version}.0",
        }

    def _sign(self, entries: list[Any]) -> None:
        document = {"source": "drill", "entries": entries}
        signed = sign(
            document,
            self.signer,
            now=datetime.now(UTC),
            expires_in=timedelta(days=1),
            manifest_version=self.version,
        )
        write_file(self.directory / MANIFEST, pack(signed))


def new_signer() -> Signer:
    """Return the signer of a new private key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Signer(Ed25519PrivateKey.generate())


class _Server(ThreadingHTTPServer):
    """A server that does not mind clients who leave."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


class _Handler(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the library names it
        """Say nothing."""
