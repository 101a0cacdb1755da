"""The certificate authorities of this machine. To read them takes longer than all else that a refresh does."""

from __future__ import annotations

import os
import ssl

import httpx2

from oneiric.errors import FetchError


class Authorities:
    """Reads the authorities, and again when their files or the variables that name them changed."""

    def __init__(self) -> None:
        self._context: ssl.SSLContext | None = None
        self._read: object = None

    def __call__(self) -> ssl.SSLContext:
        """Return a client's context that believes them; raises FetchError when they cannot be read. Blocks."""
        now = _fingerprint()
        if self._context is None or self._read != now:
            try:
                self._context = httpx2.create_ssl_context()
            except OSError as error:
                what = error.strerror or str(error)
                raise FetchError(
                    f"tls: the certificate authorities cannot be read: {what[:1].lower()}{what[1:]}",
                    reason="tls",
                    hint="check SSL_CERT_FILE and SSL_CERT_DIR",
                ) from error
            self._read = now
        return self._context


def _fingerprint() -> object:
    """Return what tells, by equality, whether there may be other authorities now."""
    defaults = ssl.get_default_verify_paths()
    named = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    return tuple((path, _stamp(path)) for path in (*named, defaults.openssl_cafile, defaults.openssl_capath))


def _stamp(path: str | None) -> object:
    try:
        status = os.stat(path or "")  # noqa: PTH116 - follows links, as who reads it does
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size
