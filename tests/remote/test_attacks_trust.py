"""Attacks on the delivery of manifests, by the names TUF gives them: each is made, and refused by the check it meets.

Every manifest here is made by a publisher that shares no code with ours. What an attacker starts from is accepted, so
that it is the attack, and nothing else, that is refused.
"""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta
from typing import Any

import pytest
import yaml

from oneiric.core.keys import parse_key
from oneiric.core.trust import Floor, TrustPolicy
from oneiric.errors import ConfigError, TrustError
from tests.harness.verifying import POLICY, accept, changed, refused
from tests.remote.publisher import (
    ALICE,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    MALLORY,
    MALLORY_KEY,
    NOW,
    document,
    entry,
    packed,
    private_key,
    signature,
    signed,
)

BOTH = TrustPolicy(keys=(ALICE_KEY, BOB_KEY), threshold=2)


def floor_of(found: dict[str, Any], policy: TrustPolicy = POLICY, **given: Any) -> Floor:
    return accept(found, policy, **given).floor


def test_manifest_that_is_in_order_is_accepted_in_every_form() -> None:
    found = signed(document())
    for content in (packed(found), json.dumps(found, indent=1).encode(), yaml.safe_dump(found).encode()):
        verified = accept(content)
        assert (verified.key_ids, len(verified.manifest.entries), verified.warnings) == ((ALICE_KEY.id,), 1, ())


# 1 Arbitrary install


def test_arbitrary_install_with_the_signature_stripped_is_refused() -> None:
    assert refused(document()) == "unsigned"


@pytest.mark.parametrize("field", [{"signature": None}, {"signatures": []}, {"signature_algorithm": "none"}])
def test_arbitrary_install_with_a_signature_of_nothing_is_refused(field: dict[str, Any]) -> None:
    assert refused({**document(), **field}) == "unsigned"


def test_arbitrary_install_signed_by_a_stranger_is_refused() -> None:
    assert refused(signed(document(), MALLORY)) == "signature"


def test_arbitrary_install_signed_by_a_stranger_who_says_who_he_is_not_is_refused() -> None:
    forged = {**signature(document(), MALLORY), "key_id": ALICE_KEY.id}
    assert refused({**document(), "signatures": [forged]}) == "signature"


@pytest.mark.parametrize(
    "change",
    [
        {"source": "shopp"},
        {"manifest_version": 6},
        {"expires_at": "2031-02-14T11:00:00Z"},
        {"signed_at": "2030-01-15T11:00:01Z"},
        {"entries": []},
        {"entries": [entry(sha256="ab" * 32)]},
        {"entries": [entry(metadata={"description": "another"})]},
        {"added": None},
    ],
    ids=lambda change: ",".join(change),
)
def test_arbitrary_install_by_a_change_after_signing_is_refused(change: dict[str, Any]) -> None:
    assert refused({**signed(document()), **change}) == "signature"


@pytest.mark.parametrize("algorithm", ["none", "ED25519", "rsa", "ed25519\n", ""])
def test_arbitrary_install_through_another_algorithm_is_refused(algorithm: str) -> None:
    found = document()
    assert refused({**found, "signatures": [{**signature(found, ALICE), "algorithm": algorithm}]}) == "algorithm"
    legacy = {"signature": signature(found, ALICE)["signature"], "signature_algorithm": algorithm}
    assert refused({**found, **legacy}) == "algorithm"


@pytest.mark.parametrize(
    "respelled",
    [
        lambda text: text.rstrip("="),
        lambda text: text + "\n",
        lambda text: " " + text,
        lambda text: text.replace("+", "-").replace("/", "_") + "-",
        lambda text: base64.b64decode(text).hex(),
        lambda text: base64.b64encode(base64.b64decode(text) + b"x").decode(),
        lambda text: text[:-3] + chr(ord(text[-3]) + 1) + "==",
    ],
    ids=["unpadded", "line feed", "space", "url-safe", "hex", "longer", "stray bits"],
)
def test_arbitrary_install_through_lax_base64_is_refused(respelled: Any) -> None:
    found = document()
    assert refused({**found, "signatures": [respelled(signature(found, ALICE)["signature"])]}) == "signature"


def test_sixteen_signatures_are_tried_and_a_seventeenth_is_refused() -> None:
    found = document()
    strangers = [signature(found, private_key(number)) for number in range(10, 25)]
    assert accept({**found, "signatures": [*strangers, signature(found, ALICE)]}).key_ids == (ALICE_KEY.id,)
    assert (
        refused({**found, "signatures": [*strangers, signature(found, MALLORY), signature(found, ALICE)]})
        == "signature"
    )


def test_signature_of_a_tool_that_dates_after_signing_is_refused_and_the_tool_is_named() -> None:
    undated = document(signed_at=None, expires_at=None)
    dated = {**signed(undated), "signed_at": "2030-01-15T11:00:00Z", "expires_at": "2030-02-14T11:00:00Z"}
    assert refused(dated) == "timestamps"
    with pytest.raises(TrustError) as caught:
        accept(dated)
    assert "does not cover expires_at and signed_at" in str(caught.value)
    assert "oneiric manifest sign" in caught.value.hint


def test_nothing_is_accepted_without_a_key_to_verify_it_by() -> None:
    assert refused(signed(document()), TrustPolicy()) == "no-key"


def test_key_whose_signatures_anybody_can_make_up_cannot_be_trusted() -> None:
    for raw in (bytes(32), b"\x01" + bytes(31)):
        with pytest.raises(ConfigError):
            parse_key(base64.b64encode(raw).decode())


def test_unsigned_manifest_is_accepted_only_where_no_signature_is_required_and_with_a_warning() -> None:
    verified = accept(document(), changed(require_signature=False))
    assert (verified.key_ids, len(verified.warnings)) == ((), 1)
    assert "accepted without a valid signature" in verified.warnings[0]


def test_signature_that_is_not_required_is_verified_all_the_same() -> None:
    verified = accept(signed(document()), changed(require_signature=False))
    assert (verified.key_ids, verified.warnings) == ((ALICE_KEY.id,), ())


def test_malformed_signature_is_no_obstacle_where_none_is_required() -> None:
    verified = accept({**document(), "signature": "placeholder"}, changed(require_signature=False))
    assert "is not the base64 of 64 bytes" in verified.warnings[0]


# 2 Endless data


def test_endless_data_is_refused_by_its_size_before_it_is_read() -> None:
    content = packed(signed(document()))
    assert accept(content, changed(max_manifest_bytes=len(content)))
    assert refused(content, changed(max_manifest_bytes=len(content) - 1)) == "size"
    assert refused(b"\xff" * 100, changed(max_manifest_bytes=99)) == "size"


def test_endless_data_in_an_artifact_is_refused_by_what_the_manifest_says_of_it() -> None:
    found = signed(document(entry(length=1001)))
    assert accept(found, changed(max_artifact_bytes=1001))
    assert refused(found, changed(max_artifact_bytes=1000)) == "size"


# 4 Fast-forward


def test_fast_forward_by_a_stolen_key_ends_when_the_key_is_no_longer_trusted() -> None:
    poisoned = floor_of(signed(document(manifest_version=2**53 - 1), MALLORY), changed(keys=(MALLORY_KEY,)))
    next_one = signed(document(manifest_version=6))
    assert refused(next_one, changed(keys=(ALICE_KEY, MALLORY_KEY)), floor=poisoned) == "rollback"
    assert accept(next_one, POLICY, floor=poisoned).floor.version == 6


def test_fast_forward_by_one_of_two_stolen_keys_does_not_bind_a_threshold_of_two() -> None:
    poisoned = floor_of(signed(document(manifest_version=9), ALICE), POLICY)
    assert accept(signed(document(), ALICE, BOB), BOTH, floor=poisoned)


def test_fast_forward_past_every_version_is_refused() -> None:
    assert refused(signed(document(manifest_version=2**53))) == "schema"


def test_fast_forward_without_a_signature_raises_no_floor() -> None:
    lax = changed(require_signature=False)
    before = floor_of(signed(document()))
    after = floor_of(document(manifest_version=2**53 - 1), lax, floor=before)
    assert after == before
    assert accept(signed(document(manifest_version=6)), floor=after)


def test_fast_forward_of_the_clock_is_refused_at_ten_minutes() -> None:
    latest, later = "2030-01-15T12:10:00Z", "2030-01-15T12:10:01Z"
    assert accept(signed(document(signed_at=latest)))
    assert refused(signed(document(signed_at=later))) == "future"


def test_fast_forward_of_the_clock_in_small_steps_is_refused() -> None:
    floor = floor_of(signed(document(signed_at="2030-01-15T12:09:00Z")))
    further = signed(document(manifest_version=6, signed_at="2030-01-15T12:18:00Z"))
    assert refused(further, floor=floor) == "future"


def test_fast_forward_of_the_clock_by_a_stolen_key_ends_with_its_trust() -> None:
    floor = Floor(version=5, digest="", key_ids=(MALLORY_KEY.id,), signed_at=NOW + timedelta(days=999))
    assert refused(signed(document()), changed(keys=(ALICE_KEY, MALLORY_KEY)), floor=floor) == "expired"
    assert accept(signed(document()), floor=floor)


# 5 Indefinite freeze


def test_indefinite_freeze_ends_when_the_manifest_expires() -> None:
    found = signed(document())
    expiry = datetime.fromisoformat(found["expires_at"])
    assert accept(found, now=expiry - timedelta(seconds=1))
    assert refused(found, now=expiry) == "expired"


def test_indefinite_freeze_by_setting_the_clock_back_is_refused() -> None:
    old = signed(document())
    floor = floor_of(
        signed(document(signed_at="2030-03-01T00:00:00Z", expires_at="2030-04-01T00:00:00Z")),
        now=datetime.fromisoformat("2030-03-01T00:00:00Z"),
    )
    assert refused(old, floor=floor, now=NOW) == "expired"


def test_indefinite_freeze_is_not_ended_by_a_floor_that_an_older_date_set() -> None:
    first = floor_of(signed(document()))
    undated = floor_of(signed(document(manifest_version=6, signed_at=None)), floor=first)
    older = floor_of(signed(document(manifest_version=7, signed_at="2029-12-31T00:00:00Z")), floor=undated)
    assert (undated.signed_at, older.signed_at) == (first.signed_at, first.signed_at)


def test_indefinite_freeze_of_a_manifest_that_never_expires_is_warned_of() -> None:
    (warning,) = accept(signed(document(expires_at=None))).warnings
    assert "never expires" in warning


def test_indefinite_freeze_is_bounded_by_max_age_whatever_the_manifest_says() -> None:
    found = signed(document(expires_at=None))
    assert accept(found, changed(max_age=3600.0)).warnings == ()
    assert refused(found, changed(max_age=3599.0)) == "expired"
    assert refused(signed(document(signed_at=None)), changed(max_age=3600.0)) == "expired"


# 7 Mix and match


def test_mix_and_match_of_entries_from_two_manifests_is_refused() -> None:
    old, new = signed(document(entry(1), entry(2))), signed(document(entry(1), entry(2, version="2.0.0")))
    assert refused({**old, "entries": [old["entries"][0], new["entries"][1]]}) == "signature"


def test_one_bad_entry_refuses_all_of_a_signed_manifest() -> None:
    assert refused(signed(document(entry(1), entry(2, priority="high"), entry(3)))) == "entry"


# 8 Rollback


def test_rollback_to_an_older_manifest_is_refused() -> None:
    older, newer = signed(document(manifest_version=4)), signed(document(manifest_version=5))
    floor = floor_of(newer, floor=floor_of(older))
    assert refused(older, floor=floor) == "rollback"
    assert accept(newer, floor=floor)


def test_rollback_below_the_settings_is_refused_although_all_state_is_lost() -> None:
    assert accept(signed(document()), changed(min_version=5))
    assert refused(signed(document()), changed(min_version=6)) == "rollback"
    assert refused(signed(document(manifest_version=None)), changed(min_version=1)) == "unversioned"


def test_rollback_to_a_manifest_without_a_version_is_refused() -> None:
    plain = signed(document(manifest_version=None))
    assert accept(plain)
    assert accept(plain, floor=floor_of(plain))
    assert refused(plain, floor=floor_of(signed(document()))) == "unversioned"


def test_equivocation_under_one_version_is_refused() -> None:
    floor = floor_of(signed(document()))
    assert refused(signed(document(entry(2))), floor=floor) == "equivocation"


def test_same_contents_in_another_form_or_with_another_signature_are_no_equivocation() -> None:
    two = changed(keys=(ALICE_KEY, BOB_KEY))
    floor = floor_of(signed(document()), two)
    assert accept(yaml.safe_dump(signed(document())).encode(), two, floor=floor)
    assert accept(signed(document(), ALICE, BOB), two, floor=floor).key_ids == (ALICE_KEY.id, BOB_KEY.id)


def test_unsigned_manifest_is_held_to_the_floor_that_signed_ones_set() -> None:
    lax = changed(require_signature=False)
    floor = floor_of(signed(document()))
    assert refused(document(manifest_version=4), lax, floor=floor) == "rollback"


# 10 Key compromise


def test_threshold_counts_keys_and_not_signatures() -> None:
    found = document()
    assert accept(signed(found, ALICE, BOB), BOTH).key_ids == (ALICE_KEY.id, BOB_KEY.id)
    assert refused(signed(found, ALICE), BOTH) == "threshold"
    assert refused(signed(found, ALICE, ALICE), BOTH) == "threshold"
    assert refused(signed(found, ALICE, MALLORY), BOTH) == "threshold"


def test_threshold_is_not_met_by_calling_one_key_by_two_names() -> None:
    found = document()
    twice = [signature(found, ALICE), {**signature(found, ALICE), "key_id": BOB_KEY.id}]
    both_forms = {"signature": twice[0]["signature"], "signatures": twice}
    assert refused({**found, "signatures": twice}, BOTH) == "threshold"
    assert refused({**found, **both_forms}, BOTH) == "threshold"


def test_threshold_is_not_met_by_trusting_one_key_twice() -> None:
    assert refused(signed(document(), ALICE), TrustPolicy(keys=(ALICE_KEY, ALICE_KEY), threshold=2)) == "threshold"


def test_key_that_is_no_longer_trusted_signs_for_nobody() -> None:
    assert refused(signed(document(), BOB), POLICY) == "signature"


# 11 Wrong software


def test_wrong_software_through_an_artifact_without_a_digest_is_refused() -> None:
    assert refused(signed(document(entry(sha256=None)))) == "entry"


# The order of checks: an answer never depends on a check that comes later


def test_each_check_comes_before_the_next() -> None:
    floor = floor_of(signed(document(manifest_version=9)))
    bad = entry(priority="high", uri="https://evil.example/x")
    worst = document(bad, expires_at="2030-01-01T00:00:00Z", manifest_version=8)
    dated = {**worst, "expires_at": "2030-02-01T00:00:00Z"}
    numbered = {**dated, "manifest_version": 9}
    renumbered = {**dated, "manifest_version": 10}
    well_formed = {**renumbered, "entries": [entry(uri="https://evil.example/x")]}
    order = [
        refused(worst, changed(max_manifest_bytes=9), floor=floor),
        refused(worst, floor=floor),
        refused(signed(worst), floor=floor),
        refused(signed(dated), floor=floor),
        refused(signed(numbered), floor=floor),
        refused(signed(renumbered), floor=floor),
        refused(signed(well_formed), floor=floor),
    ]
    assert order == ["size", "unsigned", "expired", "rollback", "equivocation", "entry", "uri"]
