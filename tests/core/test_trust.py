"""Trust as a property: what is accepted is exactly what was signed, whatever happens on the way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneiric.core.entry import BATCH
from oneiric.core.trust import Floor, TrustPolicy, VerifiedManifest, verify_manifest
from oneiric.errors import ManifestError
from tests.core.test_document import texts, values
from tests.remote.publisher import ALICE, ALICE_KEY, BOB, BOB_KEY, MALLORY, NOW, URL, document, entry, packed, signed

POLICY = TrustPolicy(keys=(ALICE_KEY, BOB_KEY))
WHOLE = packed(signed(document(entry(1), entry(2))))


def verify(content: bytes, policy: TrustPolicy = POLICY, floor: Floor | None = None) -> VerifiedManifest:
    return verify_manifest(content, policy=policy, floor=floor, now=NOW, url=URL)


ORIGINAL = verify(WHOLE)


@given(st.integers(0, len(WHOLE) - 1), st.binary(max_size=3), st.integers(0, 3))
def test_damaged_manifest_is_refused_or_says_what_was_signed(start: int, damage: bytes, length: int) -> None:
    content = WHOLE[:start] + damage + WHOLE[start + length :]
    try:
        found = verify(content)
    except ManifestError:
        return
    assert (found.manifest.entries, found.floor) == (ORIGINAL.manifest.entries, ORIGINAL.floor)


@given(st.binary(max_size=100))
def test_any_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(ManifestError):
        verify(content)


@given(st.dictionaries(st.text("abcdefé", max_size=4), values, max_size=4), st.dictionaries(texts, values, max_size=2))
def test_whatever_else_a_trusted_key_signs_is_kept_as_it_is(more: dict[str, Any], free: dict[str, Any]) -> None:
    found = verify(packed(signed({**more, **document(entry(metadata=free))}))).manifest
    assert (found.extra, found.entries[0].metadata) == (more, free)


@given(st.lists(st.sampled_from([ALICE, BOB, MALLORY]), max_size=5), st.integers(1, 3))
def test_threshold_is_met_by_distinct_trusted_keys_alone(signers: list[Any], threshold: int) -> None:
    distinct = len({id(one) for one in signers} - {id(MALLORY)})
    policy = TrustPolicy(keys=(ALICE_KEY, BOB_KEY), threshold=threshold)
    content = packed({**signed(document(), *signers), **({} if signers else {"signatures": []})})
    try:
        assert len(verify(content, policy).key_ids) == distinct >= threshold
    except ManifestError:
        assert distinct < threshold


@given(st.lists(st.none() | st.integers(1, 4), min_size=1, max_size=8))
def test_accepted_versions_never_decrease_and_never_disappear(versions: list[int | None]) -> None:
    floor, accepted = None, []
    for version in versions:
        try:
            verified = verify(packed(signed(document(manifest_version=version))), floor=floor)
        except ManifestError:
            continue
        floor = verified.floor
        accepted.append(version or 0)
    assert accepted == sorted(accepted)


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=6))
def test_clock_that_signed_manifests_vouched_for_never_goes_back(days: list[int]) -> None:
    floor, latest = None, datetime.min.replace(tzinfo=UTC)
    for version, day in enumerate(days, 1):
        signed_at = NOW + timedelta(days=day)
        dated = document(manifest_version=version, signed_at=signed_at.isoformat(), expires_at="2031-01-01T00:00:00Z")
        floor = verify_manifest(packed(signed(dated)), policy=POLICY, floor=floor, now=signed_at, url=URL).floor
        latest = max(latest, signed_at)
        assert floor.signed_at == latest


def test_verified_manifest_is_made_by_verification_alone() -> None:
    fields = {name: getattr(ORIGINAL, name) for name in ("manifest", "digest", "key_ids", "floor", "warnings")}
    with pytest.raises(TypeError, match="only verify_manifest"):
        VerifiedManifest(seal=object(), **fields)


def test_long_manifest_is_verified_whole() -> None:
    rows = [entry(number, uri=f"a/{number}.whl") for number in range(3 * BATCH + 1)]
    found = verify(packed(signed(document(*rows)))).manifest.entries
    assert [one.key for one in found] == [row["key"] for row in rows]


def test_refusal_in_a_later_batch_names_the_entry() -> None:
    rows = [entry(number) for number in range(2 * BATCH)]
    rows[BATCH + 3]["uri"] = "https://evil.example/x"
    with pytest.raises(ManifestError, match=rf"entries\[{BATCH + 3}\].uri leads to evil.example"):
        verify(packed(signed(document(*rows))))


def test_digest_is_that_of_the_bytes_received() -> None:
    import hashlib

    assert ORIGINAL.digest == hashlib.sha256(WHOLE).hexdigest()
