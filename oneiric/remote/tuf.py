"""Delivery through a TUF repository: python-tuf says what to trust, our fetcher is all it has of the network.

Below the repository's URL, metadata is in ``metadata/`` and targets are in ``targets/``. The manifest is the target
``manifest.json``; artifacts are targets under the names that its entries give as ``uri``. Needs the extra ``tuf``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, cast

import anyio
from anyio import from_thread, to_thread
from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, Root, TargetFile, Targets  # type: ignore[attr-defined]
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from oneiric.core.config import RemoteSettings
from oneiric.core.keys import TrustedKey
from oneiric.core.manifest import Entry
from oneiric.errors import ConfigError, FetchError, OneiricError, Problem, TrustError
from oneiric.remote.cache import Cache
from oneiric.remote.fetch import Fetched, Fetcher, NotModified
from oneiric.remote.local import too_large
from oneiric.remote.pinned import PinnedRoot, address_of
from oneiric.remote.source import Token, Vouched, deadline_of, token_for
from oneiric.remote.transport import failure
from oneiric.remote.urls import printable, refusal

MANIFEST: Final = "manifest.json"
FOLDER: Final = "tuf"
"""Where the cache keeps verified metadata."""
_MAX_METADATA_BYTES: Final = 5_000_000
_MAX_WORDS: Final = 200
_ABSENT: Final = (403, 404)

# The first that fits: what went wrong, the reason it is known by, and what to do.
_REASONS: Final[tuple[tuple[type[Exception], str, str], ...]] = (
    (ExpiredMetadataError, "expired", "the publisher must sign it anew; check this machine's clock too"),
    (UnsignedMetadataError, "signature", "compare remote.tuf_root with the publisher's root.json"),
    (BadVersionNumberError, "rollback", "ask the publisher: older metadata than before, or metadata that was mixed"),
    (LengthOrHashMismatchError, "digest", "ask the publisher: what was served is not what was signed"),
    (Exception, "malformed", "ask the publisher: the repository's metadata cannot be used"),
)


class Repository:
    """A TUF repository as it is at one moment: refreshed once, then asked for targets.

    Args:
        root: the pinned root metadata, from which all trust comes whatever *directory* holds.
        directory: where verified metadata is kept, in *cache* or the same; the cache's lock keeps others away.
        deadline: seconds for each step.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        *,
        root: bytes,
        cache: Cache,
        directory: Path,
        metadata_url: str,
        targets_url: str,
        deadline: float,
        token: Token = lambda: None,
    ) -> None:
        self._fetcher = fetcher
        self._root = root
        self._cache = cache
        self._directory = directory
        self._metadata_url = metadata_url
        self._targets_url = targets_url
        self._deadline = deadline
        self._token = token
        self._turn = anyio.Lock()  # an updater is made for one thread
        self._state: _State | None = None

    async def refresh(self) -> None:
        """Bring the metadata up to date, all of it verified.

        Raises FetchError, TrustError, or ConfigError when the pinned root is none.
        """
        with self._judged(), anyio.fail_after(self._deadline):
            self._state = await to_thread.run_sync(self._refresh)

    def _refresh(self) -> _State:
        with self._cache.lock():
            self._directory.mkdir(mode=0o700, exist_ok=True)
            fetcher = _Asking(self._ask)
            try:
                updater = Updater(str(self._directory), self._metadata_url, fetcher=fetcher, bootstrap=self._root)
            except RepositoryError as error:
                what = f"names no root metadata: {_words(error)}"
                raise ConfigError(Problem("remote.tuf_root", what, "a root.json as published")) from error
            updater.refresh()
            root = Metadata[Root].from_file(str(self._directory / "root.json")).signed
            return _State(updater, root, Metadata[Targets].from_file(str(self._directory / "targets.json")))

    def _ask(self, url: str, limit_bytes: int) -> bytes:
        """Fetch metadata from the worker thread; no redirect is followed."""
        ask = partial(self._fetcher.fetch, limit_bytes=limit_bytes, deadline=self._deadline, token=self._token())
        return cast("Fetched", from_thread.run(ask, url)).content

    @property
    def state(self) -> _State:
        """What the refresh found; raises RuntimeError before it."""
        if self._state is None:
            raise RuntimeError("the repository was not refreshed")
        return self._state

    async def find(self, name: str) -> TargetFile:
        """Return what the metadata says of the target *name*; raises TrustError if it is none."""

        def look() -> TargetFile | None:
            with self._cache.lock():  # delegated metadata may be fetched, and kept
                return self.state.updater.get_targetinfo(name)

        with self._judged(), anyio.fail_after(self._deadline):
            async with self._turn:
                found = await to_thread.run_sync(look)
        if found is None:
            what = f"{_words(name)} is not among the targets of the TUF repository"
            raise TrustError(what, reason="uri", hint="publish it as a target under exactly that name")
        return found

    async def fetch(self, target: TargetFile, *, limit_bytes: int, deadline: float) -> bytes:
        """Return the bytes of *target*, not yet verified."""
        prefixed = self.state.root.consistent_snapshot
        url = self._targets_url + (target.get_prefixed_paths()[0] if prefixed else target.path)
        if target.length > limit_bytes:
            raise too_large(url, limit_bytes)
        found = await self._fetcher.fetch(
            url,
            limit_bytes=target.length,
            deadline=deadline,
            same_origin_as=self._targets_url,
            token=self._token(),
        )
        return cast("Fetched", found).content

    async def verify(self, target: TargetFile, content: bytes) -> None:
        """Raise TrustError unless *content* is *target*."""
        with self._judged():
            await to_thread.run_sync(target.verify_length_and_hashes, content)

    @contextmanager
    def _judged(self) -> Iterator[None]:
        """Raise what python-tuf raises in our words."""
        try:
            yield
        except OneiricError:
            raise
        except TimeoutError as error:
            raise failure("timeout", self._metadata_url, f"not complete within {self._deadline:g} s") from error
        except DownloadError as error:
            if isinstance(cause := error.__cause__, FetchError):
                raise cause from cause.__cause__
            raise FetchError(f"http: {printable(self._metadata_url)}: {_words(error)}", reason="http") from error
        except OSError:
            raise
        except Exception as error:  # python-tuf's verdict, or what hostile metadata made of python-tuf
            reason, hint = next((reason, hint) for kind, reason, hint in _REASONS if isinstance(error, kind))
            raise TrustError(f"the TUF metadata: {_words(error)}", reason=reason, hint=hint) from error


class _State(NamedTuple):
    """What a refresh found."""

    updater: Updater
    root: Root
    targets: Metadata[Targets]


class _Asking(FetcherInterface):
    """What python-tuf has of the network: a function that returns all of a file, or raises FetchError."""

    def __init__(self, ask: Callable[[str, int], bytes]) -> None:
        self._ask = ask

    def _fetch(self, url: str) -> Iterator[bytes]:
        return iter((self.download_bytes(url, _MAX_METADATA_BYTES),))

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Return what is at *url*; more than *max_length* is never read."""
        try:
            return self._ask(url, max_length)
        except FetchError as error:
            if error.status in _ABSENT or isinstance(error.__cause__, FileNotFoundError):
                raise DownloadHTTPError(str(error), 404) from error
            raise DownloadError(str(error)) from error


class TufSource:
    """Targets of a TUF repository."""

    def __init__(
        self, fetcher: Fetcher, *, root: PinnedRoot, settings: RemoteSettings, cache: Cache, token: Token
    ) -> None:
        self._fetcher = fetcher
        self._root = root
        self._settings = settings
        self._cache = cache
        self._token = token
        self._repository: Repository | None = None

    async def manifest(self, url: str, *, etag: str | None) -> Fetched | NotModified:
        """Return the manifest of the repository at *url*; it is fetched only if the cache has another one."""
        del etag  # the metadata says what is current
        address = address_of(url)
        if "?" in address or "#" in address:
            raise refusal(url, "the URL of a repository has no query and no fragment", "remove it")
        limit_bytes, deadline = self._settings.max_manifest_bytes, self._settings.timeout
        repository = Repository(
            self._fetcher,
            root=self._root.content,
            cache=self._cache,
            directory=self._cache.directory / FOLDER,
            metadata_url=f"{address}metadata/",
            targets_url=f"{address}targets/",
            deadline=deadline,
            token=partial(token_for, url, settings=self._settings, token=self._token),
        )
        await repository.refresh()
        target = await repository.find(MANIFEST)
        content = await to_thread.run_sync(self._cache.read_manifest, limit_bytes)
        if content is None or not await to_thread.run_sync(is_target, target, content):
            content = await repository.fetch(target, limit_bytes=limit_bytes, deadline=deadline)
            await repository.verify(target, content)
        self._repository = repository
        return Vouched(content, None, f"{address}targets/{MANIFEST}", *self._voucher(repository.state))

    def _voucher(self, state: _State) -> tuple[tuple[TrustedKey, ...], int, tuple[str, ...]]:
        """Return the keys of those who say what the targets are, how many must, and which of them did."""
        found = state.root.get_verification_result(Targets.type, state.targets.signed_bytes, state.targets.signatures)
        signed = tuple(self._root.key(key_id) for key_id in found.signed)
        others = tuple(self._root.key(key_id) for key_id in found.unsigned)
        return (*signed, *others), found.threshold, tuple(sorted(key.id for key in signed))

    async def artifact(self, entry: Entry) -> Fetched | NotModified:
        """Return the target that *entry* names.

        What does not even have the digest that the manifest names is returned as it came: whoever asked refuses it, and
        keeps it as evidence.
        """
        if self._repository is None:
            raise RuntimeError("the manifest comes first")
        limit_bytes, name = self._settings.max_artifact_bytes, entry.uri or ""
        target = await self._repository.find(name)
        content = await self._repository.fetch(
            target, limit_bytes=limit_bytes, deadline=deadline_of(target.length, limit_bytes)
        )
        digest = await to_thread.run_sync(lambda: hashlib.sha256(content).hexdigest())
        if digest == entry.sha256:
            await self._repository.verify(target, content)
        return Fetched(content, None, name)


def is_target(target: TargetFile, content: bytes) -> bool:
    """Say whether *content* is *target*."""
    try:
        target.verify_length_and_hashes(content)
    except LengthOrHashMismatchError:
        return False
    return True


def _words(text: object) -> str:
    """Return what the other side may have had a say in, fit for one line."""
    return "".join(character if character.isprintable() else "?" for character in str(text)[:_MAX_WORDS])
