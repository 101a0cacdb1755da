"""The publisher's side: what we sign others verify, what others sign we verify, and files are whole or untouched."""

from __future__ import annotations

import base64
import errno
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from oneiric.core.document import read_document
from oneiric.core.manifest import parse_manifest
from oneiric.core.trust import TrustPolicy, VerifiedManifest, verify_manifest
from oneiric.errors import ManifestError, OneiricError, TrustError, UsageError
from oneiric.remote import signing
from oneiric.remote.signing import (
    Signer,
    add_signature,
    generate_keys,
    next_version,
    pack,
    read_file,
    read_signer,
    render,
    sign,
    write_file,
    write_keys,
)
from tests.remote.publisher import ALICE, ALICE_KEY, BOB, BOB_KEY, NOW, URL, covered, document, entry, packed, signed

SAMPLES = sorted((Path(__file__).parents[1] / "samples").glob("*.yaml"))
every_sample = pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
PUBLISHED = TrustPolicy(keys=(ALICE_KEY,), allowed_factories=("oneiric", "example"), allowed_hosts=("cdn.oneiric.dev",))


def ours(found: dict[str, Any], **given: Any) -> dict[str, Any]:
    fields = {"now": NOW, "expires_in": timedelta(days=30), "manifest_version": 1, **given}
    return sign(found, Signer(ALICE), **fields)


def verify(content: bytes, policy: TrustPolicy = PUBLISHED) -> VerifiedManifest:
    return verify_manifest(content, policy=policy, floor=None, now=NOW, url=URL)


def holds(found: dict[str, Any]) -> bool:
    """Say whether the first signature is Alice's, by means that are not ours."""
    try:
        ALICE.public_key().verify(base64.b64decode(found["signatures"][0]["signature"]), covered(found))
    except InvalidSignature:
        return False
    return True


# Interoperation


@every_sample
def test_sample_signed_by_others_is_verified_by_us(path: Path) -> None:
    read = yaml.safe_load(path.read_text())
    unsigned = {name: value for name, value in read.items() if name not in ("signature", "signature_algorithm")}
    published = {**signed(unsigned), "expires_at": None}
    for content in (packed(signed(unsigned)), json.dumps(signed(unsigned), indent=2).encode()):
        assert len(verify(content).manifest.entries) == len(unsigned["entries"])
    with pytest.raises(TrustError):
        verify(packed(published))


@every_sample
def test_sample_signed_by_others_in_place_is_verified_by_us_as_yaml(path: Path) -> None:
    read = yaml.safe_load(path.read_text())
    text = base64.b64encode(ALICE.sign(covered(read))).decode()
    lines = [line for line in path.read_text().splitlines() if not line.startswith("signature")]
    content = "\n".join([*lines, f"signature: {text}", "signature_algorithm: ed25519", ""]).encode()
    assert verify(content).key_ids == (ALICE_KEY.id,)


@every_sample
def test_sample_signed_by_us_is_verified_by_others_and_by_us(path: Path) -> None:
    found = ours(read_document(path.read_bytes()))
    assert holds(found)
    assert holds(yaml.safe_load(render(found, Path("m.yaml"))))
    for content in (pack(found), render(found, Path("m.yaml"))):
        assert verify(content).key_ids == (ALICE_KEY.id,)


@every_sample
def test_sample_is_refused_as_it_was_published(path: Path) -> None:
    with pytest.raises(TrustError):
        verify(path.read_bytes())


# Signing


def test_signature_covers_the_timestamps_and_the_version() -> None:
    found = ours(document(), manifest_version=7)
    assert (found["signed_at"], found["expires_at"]) == ("2030-01-15T12:00:00+00:00", "2030-02-14T12:00:00+00:00")
    assert found["manifest_version"] == 7
    assert holds(found)
    assert not any(holds({**found, name: "x"}) for name in ("signed_at", "expires_at", "manifest_version"))


def test_signing_replaces_every_signature_that_was_there() -> None:
    found = ours({**document(), "signature": "placeholder", "signature_algorithm": "none", "signatures": ["x"]})
    assert [one["key_id"] for one in found["signatures"]] == [ALICE_KEY.id]
    assert not {"signature", "signature_algorithm"} & found.keys()


def test_key_may_be_called_otherwise() -> None:
    assert ours(document(), key_id="release-2030")["signatures"][0]["key_id"] == "release-2030"


def test_nonsense_is_not_signed() -> None:
    with pytest.raises(ManifestError, match=r"entries\[1\].priority"):
        ours(document(entry(1), entry(2, priority="high")))


def test_added_signature_changes_nothing_that_is_signed() -> None:
    first = ours(document())
    both = add_signature(first, Signer(BOB))
    assert covered(both) == covered(first)
    two = TrustPolicy(keys=(ALICE_KEY, BOB_KEY), threshold=2)
    assert verify(pack(both), two).key_ids == (ALICE_KEY.id, BOB_KEY.id)


def test_signature_added_again_is_there_once() -> None:
    first = ours(document())
    assert add_signature(first, Signer(ALICE)) == first


def test_signature_beside_one_of_the_single_kind_keeps_it() -> None:
    found = document()
    single = {**found, "signature": signed(found)["signatures"][0]["signature"], "signature_algorithm": "ed25519"}
    both = add_signature(single, Signer(BOB))
    assert verify(pack(both), TrustPolicy(keys=(ALICE_KEY, BOB_KEY), threshold=2))


def test_signature_is_not_added_beside_a_placeholder() -> None:
    with pytest.raises(ManifestError, match="signature 1 cannot be one of Ed25519"):
        add_signature({**document(), "signature": "placeholder"}, Signer(ALICE))


@pytest.mark.parametrize(
    ("versions", "following"), [([], 1), ([None], 1), ([5], 6), ([5, 9], 10), ([9, None], 10), ([2**53 - 2], 2**53 - 1)]
)
def test_next_version_follows_the_highest(versions: list[int | None], following: int) -> None:
    assert next_version(*(document(manifest_version=version) for version in versions)) == following


def test_there_is_no_version_after_the_last() -> None:
    with pytest.raises(ManifestError, match="there is no version after"):
        next_version(document(manifest_version=2**53 - 1))


# Forms


@pytest.mark.parametrize("name", ["m.yaml", "m.YML"])
def test_output_is_yaml_if_its_name_says_so(name: str) -> None:
    content = render(ours(document()), Path(name))
    assert content.startswith(b"source: shop\n")
    assert read_document(content) == ours(document())


@pytest.mark.parametrize("name", ["m.json", "manifest"])
def test_output_is_packed_json_otherwise(name: str) -> None:
    found = ours(document())
    assert render(found, Path(name)) == packed(found) + b"\n"


def test_yaml_that_would_read_otherwise_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml, "safe_dump", lambda *_arguments, **_options: "entries: []\n")
    with pytest.raises(ManifestError, match="YAML cannot say this"):
        render(document(), Path("m.yaml"))


def test_packing_keeps_signatures_valid() -> None:
    found = signed(document(entry(metadata={"né": "日本", "float": 1e16, "deep": {"b": 1, "a": [None, True]}})))
    assert verify(pack(read_document(yaml.safe_dump(found, allow_unicode=True).encode()))).key_ids == (ALICE_KEY.id,)


# Keys


def raw_of(private: Any) -> bytes:
    return private.private_bytes_raw()  # type: ignore[no-any-return]


PEM = ALICE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    "content",
    [
        PEM,
        raw_of(ALICE),
        raw_of(ALICE).hex().encode(),
        raw_of(ALICE).hex().encode() + b"\n",
        base64.b64encode(raw_of(ALICE)),
    ],
    ids=["PEM", "raw", "hex", "hex and a line feed", "base64"],
)
def test_private_key_is_read_however_it_is_written(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    assert read_signer(path).key == ALICE_KEY


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an Ed25519 private key"),
        (b"nonsense", "not an Ed25519 private key"),
        (b"\xff" * 33, "not an Ed25519 private key"),
        (b"zz" * 32, "not an Ed25519 private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "not an Ed25519 private key"),
        (
            derive_private_key(7, SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "not an Ed25519 private key",
        ),
        (
            ALICE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")),
            "the private key is encrypted",
        ),
    ],
    ids=["empty", "nonsense", "33 bytes", "not hex", "broken PEM", "another kind", "encrypted"],
)
def test_file_without_a_private_key_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_signer(path)


def test_new_keys_are_a_pair_that_others_can_read(tmp_path: Path) -> None:
    pair = generate_keys()
    write_keys(pair, tmp_path / "private", tmp_path / "public", force=False)
    private = load_pem_private_key((tmp_path / "private").read_bytes(), password=None)
    public = load_pem_public_key((tmp_path / "public").read_bytes())
    assert private.public_key() == public
    assert read_signer(tmp_path / "private").key == pair.key


def test_private_key_is_for_its_owner_alone_whatever_the_mask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_keys(generate_keys(), tmp_path / "private", tmp_path / "public", force=False)
    finally:
        os.umask(before)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("there", ["private", "public"])
def test_key_that_is_there_is_not_replaced(there: str, tmp_path: Path) -> None:
    (tmp_path / there).write_text("precious")
    with pytest.raises(UsageError, match="is there already"):
        write_keys(generate_keys(), tmp_path / "private", tmp_path / "public", force=False)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {there: "precious"}


def test_key_behind_a_link_to_nowhere_counts_as_there(tmp_path: Path) -> None:
    (tmp_path / "private").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is there already"):
        write_keys(generate_keys(), tmp_path / "private", tmp_path / "public", force=False)


def test_key_is_replaced_by_force_and_then_for_its_owner_alone(tmp_path: Path) -> None:
    for name in ("private", "public"):
        (tmp_path / name).write_text("old")
        (tmp_path / name).chmod(0o666)
    pair = generate_keys()
    write_keys(pair, tmp_path / "private", tmp_path / "public", force=True)
    assert (tmp_path / "private").read_bytes() == pair.private
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600


def test_both_keys_in_one_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="named for both keys"):
        write_keys(generate_keys(), tmp_path / "key", tmp_path / "." / "key", force=True)


# Files


def test_file_is_replaced_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write_file(path, b"new")
    assert (path.read_bytes(), path.stat().st_mode & 0o777, len(list(tmp_path.iterdir()))) == (b"new", 0o640, 1)


def test_new_file_obeys_the_mask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "m.json", b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "m.json").stat().st_mode & 0o777 == 0o640


def test_file_behind_a_link_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_bytes(b"old")
    (tmp_path / "m.json").symlink_to("real.json")
    write_file(tmp_path / "m.json", b"new")
    assert (tmp_path / "m.json").is_symlink()
    assert (tmp_path / "real.json").read_bytes() == b"new"


@pytest.mark.parametrize("step", ["fsync", "fchmod"])
def test_file_is_left_as_it_was_when_writing_fails(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(b"old")

    def fail(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(signing.os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_file(path, b"new")
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == {"m.json": b"old"}


def test_file_in_no_directory_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "nowhere" / "m.json", b"new")


def test_file_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(bytes(11))
    assert read_file(tmp_path / "long", 11) == bytes(11)
    with pytest.raises(OneiricError, match="more than 10 bytes"):
        read_file(tmp_path / "long", 10)


def test_everything_that_is_signed_is_a_manifest() -> None:
    assert parse_manifest(ours(document())).manifest_version == 1
