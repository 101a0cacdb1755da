"""The engines of delivery, chosen by a URL's scheme.

Plain: files at URLs, vouched for by the signatures in the manifest. TUF: targets of a repository, vouched for by its
metadata.
"""

from __future__ import annotations

from oneiric.core.config import RemoteSettings
from oneiric.core.manifest import Entry
from oneiric.errors import ConfigError, Problem
from oneiric.remote.cache import Cache
from oneiric.remote.fetch import Fetched, Fetcher, NotModified
from oneiric.remote.pinned import is_tuf, read_root
from oneiric.remote.source import Source, Token, deadline_of, token_for


def open_source(url: str, fetcher: Fetcher, *, settings: RemoteSettings, cache: Cache, token: Token) -> Source:
    """Return the way to what is at *url*, chosen by its scheme. Blocks.

    Raises ConfigError when a TUF repository is named and no root is pinned, or python-tuf is not installed.
    """
    if not is_tuf(url):
        return PlainSource(fetcher, settings=settings, token=token)
    root = read_root(settings)
    try:
        from oneiric.remote.tuf import TufSource
    except ModuleNotFoundError as error:
        what = f"tuf+ URLs need the extra oneiric[tuf], and {error.name} is not installed"
        raise ConfigError(Problem("remote.manifest_url", what), hint="pip install 'oneiric[tuf]'") from error
    return TufSource(fetcher, root=root, settings=settings, cache=cache, token=token)


class PlainSource:
    """Files at URLs."""

    def __init__(self, fetcher: Fetcher, *, settings: RemoteSettings, token: Token) -> None:
        self._fetcher = fetcher
        self._settings = settings
        self._token = token
        self._manifest_url = ""

    async def manifest(self, url: str, *, etag: str | None) -> Fetched | NotModified:
        """Return the manifest at *url*; NotModified if it is still what *etag* stands for."""
        self._manifest_url = url
        return await self._fetcher.fetch(
            url,
            limit_bytes=self._settings.max_manifest_bytes,
            deadline=self._settings.timeout,
            etag=etag,
            token=token_for(url, settings=self._settings, token=self._token),
        )

    async def artifact(self, entry: Entry) -> Fetched | NotModified:
        """Return the artifact that *entry* of the manifest asked for last names."""
        limit_bytes = self._settings.max_artifact_bytes
        return await self._fetcher.fetch(
            entry.uri or "",
            limit_bytes=min(entry.length or limit_bytes, limit_bytes),
            deadline=deadline_of(entry.length, limit_bytes),
            same_origin_as=self._manifest_url,
            token=token_for(self._manifest_url, settings=self._settings, token=self._token),
        )
