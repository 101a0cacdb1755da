"""The only door through which a manifest comes in. ``verify_manifest`` says whether it may be acted on, and why not.

The order of checks: size, strict reading, signatures of distinct keys, expiry and clock, version against the floor,
schema, and what each entry may name. The first that fails is the answer; none has a side effect.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final, NoReturn

import msgspec

from oneiric.core.keys import TrustedKey, decode_base64, verifies
from oneiric.core.manifest import (
    Entry,
    Manifest,
    Reading,
    canonical_bytes,
    iterate_entries,
    parse_head,
    read_packed,
    read_strictly,
    rows_of,
)
from oneiric.core.origin import Origins
from oneiric.core.words import plural
from oneiric.errors import ManifestError, TrustError

MAX_SIGNATURES: Final = 16
CLOCK_SKEW: Final = timedelta(minutes=10)
_NEVER: Final = "oneiric.cli"  # whatever is allowed: a factory that ends the process is none
_SEAL: Final = object()
_SIGN_AGAIN: Final = "sign it with one of the trusted keys: oneiric manifest sign"


class TrustPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a manifest acceptable here; the settings of ``remote:`` with the keys read.

    Args:
        threshold: how many distinct keys must have signed.
        max_age: seconds after ``signed_at`` from which a manifest counts as expired, whatever it says itself.
        min_version: the lowest version that is ever accepted, also when all state is lost.
        allowed_factories: modules from which a factory without an artifact may come, with all below them.
    """

    keys: tuple[TrustedKey, ...] = ()
    threshold: int = 1
    require_signature: bool = True
    max_age: float | None = None
    min_version: int | None = None
    allowed_factories: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    allow_plain_http: bool = False
    max_manifest_bytes: int = 33_554_432
    max_artifact_bytes: int = 268_435_456


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """The newest manifest accepted from a source: an older one is refused while those who signed it are trusted.

    Args:
        version: its version, None when it had none.
        digest: SHA-256 of the bytes that its signatures cover.
        key_ids: the keys that signed it.
        signed_at: the latest instant that a trusted signature ever vouched for; time has come that far at least.
    """

    version: int | None
    digest: str
    key_ids: tuple[str, ...] = ()
    signed_at: datetime | None = None


class VerifiedManifest(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest that may be acted on; made by ``verify_manifest`` and by nobody else.

    Args:
        digest: SHA-256 of the bytes as received.
        key_ids: the trusted keys whose signatures hold.
        floor: what to compare the next manifest of this source with.
        warnings: what an operator should know although it is no reason to refuse.
    """

    seal: object
    manifest: Manifest
    digest: str
    key_ids: tuple[str, ...]
    floor: Floor
    warnings: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.seal is not _SEAL:
            raise TypeError("only verify_manifest makes a VerifiedManifest")


def verify_manifest(
    content: bytes,
    *,
    policy: TrustPolicy,
    floor: Floor | None,
    now: datetime,
    url: str,
    vouched_by: tuple[str, ...] = (),
) -> VerifiedManifest:
    """Return the manifest that *content* is, if it may be acted on.

    Long manifests take a while: call it in a worker thread. It works in steps of a few milliseconds, between which
    other threads run.

    Args:
        floor: what was accepted before from this source, None for the first time.
        now: an aware instant.
        url: where *content* came from; the addresses of artifacts are judged by it.
        vouched_by: the keys of *policy* that vouch for *content* elsewhere, in the metadata of a TUF repository; then
            no signature is looked for in it.

    Raises:
        ManifestError: it cannot be read, or an entry is malformed.
        TrustError: it must not be trusted; ``reason`` names the check.
    """
    if len(content) > policy.max_manifest_bytes:
        what = f"the manifest has {len(content):,} bytes, and {policy.max_manifest_bytes:,} are allowed"
        raise ManifestError(what, reason="size", hint="remote.max_manifest_bytes")
    reading, head, key_ids, warnings = _identify(content, policy, vouched_by)
    binding = floor if floor is not None and _binds(floor, policy) else None
    digest = hashlib.sha256(reading.signed).hexdigest()
    entries: list[Entry] = []
    with _attributed(head, key_ids):
        require_fresh(head, policy, floor=floor, now=now)
        _refuse_older(head, policy, binding, digest)
        judge = _Judge(policy, url)
        for batch in iterate_entries(rows_of(reading.document)):
            judge.judge(batch, len(entries))
            entries += batch
    if head.expires_at is None and policy.max_age is None and not vouched_by:
        warnings = (*warnings, "the manifest never expires: whoever can hold it back can do so for ever")
    return VerifiedManifest(
        seal=_SEAL,
        manifest=msgspec.structs.replace(head, entries=tuple(entries)),
        digest=hashlib.sha256(content).hexdigest(),
        key_ids=key_ids,
        floor=_next_floor(head, digest, key_ids, floor=floor, binding=binding),
        warnings=warnings,
    )


def _identify(
    content: bytes, policy: TrustPolicy, vouched_by: tuple[str, ...]
) -> tuple[Reading, Manifest, tuple[str, ...], tuple[str, ...]]:
    """Return what *content* says, the trusted keys that signed it, and warnings; raises TrustError if too few did.

    The received bytes are tried first, which needs no decoding of the entries; then the canonical bytes.
    """
    if vouched_by and len({key.id for key in policy.keys} & set(vouched_by)) < policy.threshold:
        _refuse("threshold", "it is vouched for by fewer of the trusted keys than must vouch", _SIGN_AGAIN)
    packed = read_packed(content)
    if packed is not None:
        try:
            head = parse_head(packed.document)
            return packed, head, vouched_by or _signers(head, packed, policy), ()
        except ManifestError:
            pass  # the strict reading decides
    reading = read_strictly(content)
    head = parse_head(reading.document)
    with _attributed(head):
        try:
            return reading, head, vouched_by or _signers(head, reading, policy), ()
        except TrustError as error:
            if policy.require_signature:
                if error.reason == "signature":
                    _refuse_dated_after_signing(head, policy, reading.document)
                raise
            return reading, head, (), (f"accepted without a valid signature, as require_signature is off: {error}",)


@contextmanager
def _attributed(head: Manifest, signers: tuple[str, ...] = ()) -> Iterator[None]:
    """Have an error say which keys the manifest claims to be signed with, and which of the trusted ones signed it."""
    try:
        yield
    except ManifestError as error:
        error.claimed = tuple(signature.key_id for signature in head.signatures[:MAX_SIGNATURES])
        error.signers = signers
        raise


def _signers(head: Manifest, reading: Reading, policy: TrustPolicy) -> tuple[str, ...]:
    """Return the ids of the trusted keys that signed; raises TrustError when they are fewer than the threshold."""
    signatures = _decoded(head)
    keys = dict.fromkeys(policy.keys)
    if not keys:
        _refuse("no-key", "no public key is configured, so no signature can be verified", "remote.public_key")
    if not signatures:
        _refuse("unsigned", "the manifest is not signed", _SIGN_AGAIN)
    signers = _who_signed(signatures, keys, reading.signed)
    trusted = ", ".join(key.id for key in keys)
    if not signers:
        there = plural(len(signatures), "signature")
        what = f"{there}, and none is one of a trusted key ({trusted}) over these contents"
        _refuse("signature", what, _SIGN_AGAIN)
    if len(signers) < policy.threshold:
        what = f"signed by {len(signers)} of the trusted keys ({', '.join(signers)}), and {policy.threshold} must sign"
        _refuse("threshold", what, "add a signature: oneiric manifest sign --append")
    return signers


def _who_signed(signatures: list[bytes], keys: Iterable[TrustedKey], signed: bytes) -> tuple[str, ...]:
    return tuple(key.id for key in keys if any(verifies(key, signature, signed) for signature in signatures))


def _decoded(head: Manifest) -> list[bytes]:
    """Return the signatures; raises TrustError when one cannot be one."""
    if len(head.signatures) > MAX_SIGNATURES:
        _refuse("signature", f"{len(head.signatures)} signatures, and {MAX_SIGNATURES} are allowed", _SIGN_AGAIN)
    decoded: list[bytes] = []
    for index, signature in enumerate(head.signatures):
        if signature.algorithm != "ed25519":
            _refuse("algorithm", f"signature {index + 1} is of another algorithm than ed25519", _SIGN_AGAIN)
        raw = decode_base64(signature.signature)
        if raw is None or len(raw) != 64:
            _refuse("signature", f"signature {index + 1} is not the base64 of 64 bytes", _SIGN_AGAIN)
        decoded.append(raw)
    return decoded


def _refuse_dated_after_signing(head: Manifest, policy: TrustPolicy, document: Mapping[str, Any]) -> None:
    """Name the mistake of tools that sign first and date afterwards: nobody vouches for their timestamps."""
    timestamps = document.keys() & {"signed_at", "expires_at"}
    undated = canonical_bytes({name: value for name, value in document.items() if name not in timestamps})
    if _who_signed(_decoded(head), policy.keys, undated):
        what = f"the signature does not cover {' and '.join(sorted(timestamps))}: they were added after signing"
        _refuse("timestamps", what, "oneiric manifest sign, which covers its own timestamps")


def _binds(floor: Floor, policy: TrustPolicy) -> bool:
    """Say whether those who set *floor* would still be believed: with a stolen key goes the floor that it poisoned."""
    return len({key.id for key in policy.keys} & set(floor.key_ids)) >= policy.threshold


def require_fresh(head: Manifest, policy: TrustPolicy, *, floor: Floor | None, now: datetime) -> None:
    """Raise TrustError when *head* has expired, or was signed in a future that *now* knows nothing of.

    Time has come at least as far as what a trusted signature vouched for: a clock set back revives nothing.
    """
    clock = _latest(now, floor.signed_at if floor is not None and _binds(floor, policy) else None)
    if head.expires_at is not None and clock >= head.expires_at:
        _refuse("expired", f"the manifest expired at {_text(head.expires_at)}", "publish it signed anew")
    if head.signed_at is not None and head.signed_at > now + CLOCK_SKEW:
        what = f"the manifest was signed at {_text(head.signed_at)}, and here it is {_text(now)}"
        _refuse("future", what, "set the clock, here or at the publisher's")
    if policy.max_age is None:
        return
    if head.signed_at is None:
        _refuse("expired", "the manifest does not say when it was signed, and remote.max_age is set", _SIGN_AGAIN)
    if (clock - head.signed_at).total_seconds() > policy.max_age:
        what = f"the manifest was signed at {_text(head.signed_at)}, longer ago than remote.max_age allows"
        _refuse("expired", what, "publish it signed anew")


def _refuse_older(head: Manifest, policy: TrustPolicy, floor: Floor | None, digest: str) -> None:
    """Raise TrustError when something newer than *head* was accepted before, or something else under its number."""
    version = head.manifest_version
    lowest = max(policy.min_version or 0, floor.version or 0 if floor else 0)
    again = "publish it with a higher manifest_version: oneiric manifest sign"
    if version is None:
        if lowest:
            _refuse("unversioned", f"the manifest has no version, and {lowest} is the lowest accepted", again)
    elif version < lowest:
        _refuse("rollback", f"manifest version {version}, and {lowest} is the lowest accepted", again)
    elif floor is not None and version == floor.version and digest != floor.digest:
        _refuse("equivocation", f"manifest version {version} was accepted before with other contents", again)


def _next_floor(
    head: Manifest, digest: str, key_ids: tuple[str, ...], *, floor: Floor | None, binding: Floor | None
) -> Floor:
    """Return the floor after *head*. What no trusted key signed raises none, and takes none away."""
    if not key_ids:
        return floor or Floor(version=None, digest=digest)
    before = binding.signed_at if binding is not None else None
    signed_at = _latest(head.signed_at, before) if head.signed_at is not None else before
    return Floor(version=head.manifest_version, digest=digest, key_ids=key_ids, signed_at=signed_at)


class _Judge:
    """Refuses entries that name what a manifest has no say over."""

    def __init__(self, policy: TrustPolicy, url: str) -> None:
        self._policy = policy
        self._origins = Origins(url, allowed_hosts=policy.allowed_hosts, allow_plain_http=policy.allow_plain_http)
        self._allowed: set[str] = set()

    def judge(self, entries: list[Entry], start: int) -> None:
        """Raise TrustError for the first of *entries* that does."""
        for index, entry in enumerate(entries, start):
            if entry.uri is None:
                self._judge_factory(entry, index)
                continue
            why = self._origins.refusal(entry.uri)
            if why is not None:
                _refuse("uri", f"entries[{index}].uri {why}", "remote.allowed_hosts, or publish it beside the manifest")
            if entry.length is not None and entry.length > self._policy.max_artifact_bytes:
                what = f"{entry.length:,} bytes, and {self._policy.max_artifact_bytes:,} are allowed"
                _refuse("size", f"entries[{index}].length: {what}", "remote.max_artifact_bytes")

    def _judge_factory(self, entry: Entry, index: int) -> None:
        """Raise TrustError unless the factory is in a module that the operator allowed, or in one below it."""
        module = entry.factory.partition(":")[0]
        if module in self._allowed:
            return
        if _is_below(module, _NEVER) or not any(_is_below(module, name) for name in self._policy.allowed_factories):
            what = f"entries[{index}].factory: a manifest may not name a factory in {module}"
            _refuse("factory", what, "publish an artifact that holds it, or add its module to remote.allowed_factories")
        self._allowed.add(module)


def _is_below(module: str, above: str) -> bool:
    return module == above or module.startswith(f"{above}.")


def _latest(instant: datetime, other: datetime | None) -> datetime:
    return instant if other is None else max(instant, other)


def _text(instant: datetime) -> str:
    return instant.isoformat(timespec="seconds").replace("+00:00", "Z")


def _refuse(reason: str, what: str, hint: str) -> NoReturn:
    raise TrustError(what, reason=reason, hint=hint)
