"""``oneiric manifest``: keygen, sign, verify, pack and schema, as a publisher types them."""

from __future__ import annotations

import base64
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jsonschema import Draft202012Validator

from oneiric.core.keys import parse_key
from tests.cli.conftest import Typing
from tests.cli.test_startup import HEAVY, PARSERS, imported, offenders
from tests.remote.publisher import ALICE, ALICE_KEY, BOB, BOB_KEY, covered, document, entry, packed, signed

SAMPLES = Path(__file__).parents[1] / "samples"
FILES = sorted(path.name for path in SAMPLES.glob("*.yaml"))
FAR = "2999-01-01T00:00:00Z"
NAMES = {"alice": (ALICE, ALICE_KEY), "bob": (BOB, BOB_KEY)}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A publisher's directory: keys of two people, the samples, and a manifest of one entry."""
    monkeypatch.chdir(tmp_path)
    for name, (private, key) in NAMES.items():
        path = Path(f"{name}.pem")
        path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        path.chmod(0o600)
        Path(f"{name}.pub").write_text(key.raw.hex())
    for name in FILES:
        shutil.copy(SAMPLES / name, name)
    Path("m.json").write_text(json.dumps(bare(), indent=1))
    return tmp_path


def bare(**changed: Any) -> dict[str, Any]:
    return document(**{"signed_at": None, "expires_at": None, "manifest_version": None, **changed})


def lasting(**changed: Any) -> dict[str, Any]:
    """Return a manifest that is in order now, whenever that is."""
    return document(**{"signed_at": "2020-01-01T00:00:00Z", "expires_at": FAR, **changed})


def sign(typed: Typing, *arguments: str) -> Any:
    return typed("manifest", "sign", "--private-key", "alice.pem", *arguments)


def verify(typed: Typing, *arguments: str, key: str = "alice.pub") -> Any:
    return typed("manifest", "verify", "--public-key", key, *arguments)


# keygen


def test_keygen_writes_a_pair_to_sign_and_verify_with(typed: Typing) -> None:
    answer = typed("manifest", "keygen", "--private-key", "new.pem", "--public-key", "new.pub")
    assert (answer.code, answer.err) == (0, "")
    assert Path("new.pem").stat().st_mode & 0o777 == 0o600
    assert typed("manifest", "sign", "-i", "m.json", "--private-key", "new.pem").code == 0
    assert verify(typed, "-i", "m.json", key="new.pub").code == 0


def test_keygen_prints_the_public_key_as_settings_take_it_and_never_the_private_one(typed: Typing) -> None:
    answer = typed("manifest", "keygen", "--private-key", "new.pem", "--public-key", "new.pub", "--json")
    found = answer.document
    assert found["schema"] == "oneiric.manifest-keygen/1"
    assert parse_key(found["public_key_base64"]).id == found["key_id"]
    assert parse_key(found["public_key_base64"]) == parse_key(Path("new.pub").read_text())
    assert Path("new.pem").read_text().splitlines()[1] not in answer.out


def test_keygen_replaces_no_key_without_force(typed: Typing) -> None:
    before = Path("alice.pem").read_bytes()
    answer = typed("manifest", "keygen", "--private-key", "alice.pem", "--public-key", "new.pub")
    assert (answer.code, Path("alice.pem").read_bytes(), Path("new.pub").exists()) == (2, before, False)
    assert "alice.pem: is there already" in answer.err
    forced = typed("manifest", "keygen", "--private-key", "alice.pem", "--public-key", "new.pub", "--force")
    assert (forced.code, Path("alice.pem").read_bytes() == before) == (0, False)


# sign


def test_sign_dates_numbers_and_signs_in_place(typed: Typing) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    answer = sign(typed, "-i", "m.json", "--json")
    found = json.loads(Path("m.json").read_text())
    lifetime = datetime.fromisoformat(found["expires_at"]) - datetime.fromisoformat(found["signed_at"])
    assert (answer.code, found["manifest_version"], lifetime) == (0, 1, timedelta(days=30))
    assert before <= datetime.fromisoformat(found["signed_at"]) <= datetime.now(UTC)
    ALICE.public_key().verify(base64.b64decode(found["signatures"][0]["signature"]), covered(found))
    assert answer.document == {
        "schema": "oneiric.manifest-sign/1",
        "output": "m.json",
        "key_id": ALICE_KEY.id,
        "source": "shop",
        "manifest_version": 1,
        "signed_at": found["signed_at"],
        "expires_at": found["expires_at"],
        "entries": 1,
        "signatures": 1,
    }


def test_sign_leaves_the_input_alone_when_there_is_an_output(typed: Typing) -> None:
    before = Path("m.json").read_bytes()
    assert sign(typed, "-i", "m.json", "-o", "out.json").code == 0
    assert Path("m.json").read_bytes() == before
    assert verify(typed, "-i", "out.json").code == 0


def test_sign_counts_on_from_what_was_published(typed: Typing) -> None:
    def number() -> int:
        found = sign(typed, "-i", "m.json", "-o", "out.json", "--json").document["manifest_version"]
        return int(found)

    assert [number() for _ in range(3)] == [1, 2, 3]
    Path("m.json").write_text(json.dumps(bare(manifest_version=9)))
    assert number() == 10


def test_sign_takes_a_number_a_lifetime_and_a_name(typed: Typing) -> None:
    arguments = ("--manifest-version", "41", "--expires-in", "12h", "--key-id", "release")
    found = sign(typed, "-i", "m.json", *arguments, "--json").document
    lifetime = datetime.fromisoformat(found["expires_at"]) - datetime.fromisoformat(found["signed_at"])
    assert (found["manifest_version"], lifetime) == (41, timedelta(hours=12))
    assert json.loads(Path("m.json").read_text())["signatures"][0]["key_id"] == "release"


def test_sign_appends_a_signature_and_changes_nothing_else(typed: Typing) -> None:
    sign(typed, "-i", "m.json", "--expires-in", "1w")
    first = json.loads(Path("m.json").read_text())
    answer = typed("manifest", "sign", "-i", "m.json", "--private-key", "bob.pem", "--append", "--json")
    second = json.loads(Path("m.json").read_text())
    assert (answer.code, answer.document["signatures"], covered(second)) == (0, 2, covered(first))
    assert verify(typed, "-i", "m.json", "--public-key", "bob.pub", "--threshold", "2").code == 0


@pytest.mark.parametrize("argument", [("--expires-in", "30d"), ("--manifest-version", "7")])
def test_sign_does_not_append_and_change(typed: Typing, argument: tuple[str, str]) -> None:
    sign(typed, "-i", "m.json")
    before = Path("m.json").read_bytes()
    answer = sign(typed, "-i", "m.json", "--append", *argument)
    assert (answer.code, Path("m.json").read_bytes()) == (2, before)
    assert "--append changes nothing" in answer.err


def test_sign_refuses_a_bad_entry_by_its_place_and_writes_nothing(typed: Typing) -> None:
    Path("m.json").write_text(json.dumps(bare(entries=[entry(1), entry(2, priority="high")])))
    answer = sign(typed, "-i", "m.json", "-o", "out.json")
    assert (answer.code, Path("out.json").exists()) == (1, False)
    assert "m.json: entry: entries[1].priority: expected a whole number, found text" in answer.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--expires-in", "soon"), "'soon' is no length of time"),
        (("--expires-in", "0d"), "'0d' is no length of time"),
        (("--expires-in", "9999d"), "at most 3650d"),
        (("--expires-in", "999999999w"), "at most 3650d"),
        (("--manifest-version", "0"), "'0' is no version"),
        (("--manifest-version", "-1"), "'-1' is no version"),
        (("--manifest-version", str(2**53)), "is no version"),
        (("--private-key", "alice.pub.none"), "alice.pub.none: No such file"),
        (("-o", "nowhere/out.json"), "No such file or directory"),
    ],
)
def test_sign_says_what_is_wrong_with_an_option(typed: Typing, arguments: tuple[str, ...], words: str) -> None:
    before = Path("m.json").read_bytes()
    answer = sign(typed, "-i", "m.json", *arguments)
    assert answer.code in (1, 2)
    assert words in answer.err
    assert Path("m.json").read_bytes() == before


def test_sign_says_that_a_public_key_is_no_private_one(typed: Typing) -> None:
    Path("wrong").write_text("not a key")
    answer = typed("manifest", "sign", "-i", "m.json", "--private-key", "wrong")
    assert (answer.code, "wrong: not an Ed25519 private key" in answer.err) == (2, True)


def test_sign_warns_of_a_private_key_that_others_can_read(typed: Typing) -> None:
    assert sign(typed, "-i", "m.json").err == ""
    Path("alice.pem").chmod(0o640)
    assert "warning: alice.pem can be read by others" in sign(typed, "-i", "m.json").err


def test_sign_keeps_yaml_yaml(typed: Typing) -> None:
    name = FILES[0]
    before = yaml.safe_load(Path(name).read_text())
    assert sign(typed, "-i", name).code == 0
    after = yaml.safe_load(Path(name).read_text())
    assert {**before, **{field: after[field] for field in after.keys() - before.keys()}} == after
    assert verify(typed, "-i", name).code == 0


def test_sign_does_not_count_on_from_an_output_it_cannot_read(typed: Typing) -> None:
    Path("out.json").write_text("{")
    answer = sign(typed, "-i", "m.json", "-o", "out.json")
    assert (answer.code, Path("out.json").read_text()) == (1, "{")
    assert "out.json: malformed: line 1: not valid JSON" in answer.err
    assert sign(typed, "-i", "m.json", "-o", "out.json", "--manifest-version", "1").code == 0


# verify


@pytest.mark.parametrize("key", ["alice.pub", ALICE_KEY.raw.hex(), base64.b64encode(ALICE_KEY.raw).decode()])
def test_verify_takes_a_key_or_a_file_of_one(typed: Typing, key: str) -> None:
    Path("m.json").write_bytes(packed(signed(lasting())))
    assert verify(typed, "-i", "m.json", key=key).code == 0


def test_verify_says_what_consumers_need(typed: Typing) -> None:
    rows = [entry(1, uri="https://cdn.example.com/x.whl"), entry(2, uri=None, sha256=None, factory="shop.tasks:Sweep")]
    Path("m.json").write_bytes(packed(signed(lasting(entries=rows))))
    answer = verify(typed, "-i", "m.json", "--json")
    found = answer.document
    assert (answer.code, found["schema"], found["valid"]) == (0, "oneiric.manifest-verify/1", True)
    assert found["needs"] == {"allowed_factories": ["shop.tasks"], "allowed_hosts": ["cdn.example.com"]}
    assert (found["key_ids"], found["entries"], found["manifest_version"]) == ([ALICE_KEY.id], 2, 5)
    text = verify(typed, "-i", "m.json").out
    assert 'consumers need remote.allowed_hosts: ["cdn.example.com"]' in text


def test_verify_warns_of_a_manifest_that_never_expires(typed: Typing) -> None:
    Path("m.json").write_bytes(packed(signed(lasting(expires_at=None))))
    answer = verify(typed, "-i", "m.json")
    assert (answer.code, answer.err.startswith("warning: the manifest never expires")) == (0, True)


REFUSED = {
    "unsigned": lasting(),
    "signature": signed(lasting(), BOB),
    "algorithm": {**lasting(), "signature": "x", "signature_algorithm": "rsa"},
    "expired": signed(lasting(expires_at="2021-01-01T00:00:00Z")),
    "future": signed(lasting(signed_at="2998-01-01T00:00:00Z")),
    "timestamps": {**signed(bare()), "signed_at": "2020-01-01T00:00:00Z", "expires_at": FAR},
    "uri": signed(lasting(entries=[entry(uri="https://bob:hunter2@cdn.example.com/x")])),
    "factory": signed(lasting(entries=[entry(uri=None, sha256=None, factory="oneiric.cli:main")])),
}


@pytest.mark.parametrize("check", REFUSED)
def test_verify_exits_5_and_names_the_check_that_fails(typed: Typing, check: str) -> None:
    Path("m.json").write_bytes(packed(REFUSED[check]))
    answer = verify(typed, "-i", "m.json")
    assert (answer.code, answer.out) == (5, "")
    assert answer.err.startswith(f"error[trust]: m.json: {check}: ")
    assert "hunter2" not in answer.err
    error = verify(typed, "-i", "m.json", "--json").document["error"]
    assert (error["code"], error["exit_code"]) == ("trust", 5)


@pytest.mark.parametrize("name", FILES)
def test_verify_exits_5_for_a_sample_as_it_was_published(typed: Typing, name: str) -> None:
    assert verify(typed, "-i", name).code == 5


def test_verify_counts_distinct_keys(typed: Typing) -> None:
    Path("m.json").write_bytes(packed(signed(lasting(), ALICE, ALICE)))
    answer = verify(typed, "-i", "m.json", "--public-key", "bob.pub", "--threshold", "2")
    assert (answer.code, "m.json: threshold: " in answer.err) == (5, True)


def test_verify_cannot_ask_for_more_keys_than_there_are(typed: Typing) -> None:
    answer = verify(typed, "-i", "m.json", "--public-key", ALICE_KEY.raw.hex(), "--threshold", "2")
    assert (answer.code, "exceeds the number of distinct keys, 1" in answer.err) == (2, True)


def test_verify_exits_1_for_what_is_no_manifest(typed: Typing) -> None:
    Path("m.json").write_text('{"entries":[],\n"entries":[]}')
    answer = verify(typed, "-i", "m.json")
    assert (answer.code, "m.json: malformed: line 2: duplicate key 'entries'" in answer.err) == (1, True)


@pytest.mark.parametrize("key", ["alice.pem", "nonsense"])
def test_verify_says_what_is_no_public_key_without_repeating_it(typed: Typing, key: str) -> None:
    answer = verify(typed, "-i", "m.json", key=key)
    assert answer.code == 2
    assert Path("alice.pem").read_text().splitlines()[1] not in answer.err
    assert "nonsense" not in answer.err


# pack


@pytest.mark.parametrize("name", FILES)
def test_pack_writes_canonical_json(typed: Typing, name: str) -> None:
    answer = typed("manifest", "pack", "-i", name, "-o", "out.json", "--json")
    assert Path("out.json").read_bytes() == packed(yaml.safe_load(Path(name).read_text())) + b"\n"
    found = answer.document
    assert (found["schema"], found["bytes"]) == ("oneiric.manifest-pack/1", Path("out.json").stat().st_size)


def test_pack_keeps_signatures_valid_and_says_so(typed: Typing) -> None:
    Path("m.yaml").write_text(yaml.safe_dump(signed(lasting())))
    answer = typed("manifest", "pack", "-i", "m.yaml", "-o", "out.json")
    assert "signatures: 1, which hold as before" in answer.out
    assert verify(typed, "-i", "out.json").code == 0


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (lasting(), "it is not signed"),
        ({**lasting(), "signature": "placeholder"}, "its signature cannot be one of Ed25519"),
    ],
)
def test_pack_says_when_a_manifest_must_be_signed(typed: Typing, found: dict[str, Any], words: str) -> None:
    Path("m.json").write_text(json.dumps(found))
    answer = typed("manifest", "pack", "-i", "m.json", "-o", "out.json")
    assert f"{words}: oneiric manifest sign -i out.json" in answer.out
    assert typed("manifest", "pack", "-i", "m.json", "-o", "out.json", "--json").document["sign_again"] is True


def test_pack_writes_nothing_for_what_is_no_manifest(typed: Typing) -> None:
    Path("m.json").write_text('{"entries": [{}]}')
    answer = typed("manifest", "pack", "-i", "m.json", "-o", "out.json")
    assert (answer.code, Path("out.json").exists()) == (1, False)


# schema


@pytest.fixture
def validator(typed: Typing) -> Draft202012Validator:
    found = json.loads(typed("manifest", "schema").out)
    Draft202012Validator.check_schema(found)
    return Draft202012Validator(found)


@pytest.mark.parametrize("name", FILES)
def test_schema_accepts_the_samples(validator: Draft202012Validator, name: str) -> None:
    validator.validate(yaml.safe_load(Path(name).read_text()))


def test_schema_accepts_what_we_sign(typed: Typing, validator: Draft202012Validator) -> None:
    sign(typed, "-i", "m.json")
    validator.validate(json.loads(Path("m.json").read_text()))


BAD = [
    {"source": "a b"},
    {"entries": None},
    {"manifest_version": 0},
    {"manifest_version": "5"},
    {"signature_algorithm": 5},
    {"signatures": ["x"] * 17},
    *(
        {"entries": [entry(**change)]}
        for change in (
            {"domain": "kitchen"},
            {"key": "a..b"},
            {"provider": "A"},
            {"factory": "shop"},
            {"sha256": None},
            {"sha256": "x"},
            {"length": 0},
            {"priority": "high"},
            {"capabilities": [5]},
            {"timeout_seconds": 0},
            {"event_filters": ["x"]},
        )
    ),
]


@pytest.mark.parametrize("change", BAD, ids=str)
def test_schema_refuses_what_we_refuse(typed: Typing, validator: Draft202012Validator, change: dict[str, Any]) -> None:
    found = {**signed(lasting()), **change}
    found = {name: value for name, value in found.items() if value is not None}
    Path("m.json").write_text(json.dumps(found))
    assert not validator.is_valid(found)
    assert verify(typed, "-i", "m.json").code != 0


def test_schema_in_json_is_one_object_that_names_its_own(typed: Typing) -> None:
    found = typed("manifest", "schema", "--json").document
    assert found["schema"] == "oneiric.manifest-schema/1"
    Draft202012Validator.check_schema(found["json_schema"])


@pytest.mark.parametrize("arguments", [("--help",), ("sign", "--help"), ("verify", "--help")], ids=" ".join)
def test_help_imports_no_parser_and_no_cryptography(place: Path, arguments: tuple[str, ...]) -> None:
    assert offenders(imported(place, "manifest", *arguments), HEAVY | PARSERS) == []


def test_command_that_is_mistyped_is_guessed(typed: Typing) -> None:
    answer = typed("manifest", "verfy")
    assert (answer.code, "did you mean verify?" in answer.err) == (2, True)
