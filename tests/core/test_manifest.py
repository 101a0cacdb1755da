"""Manifests: what they say, which bytes a signature covers, and which entry is wrong."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from oneiric.core.candidate import Candidate, Slot, is_factory_path, is_name
from oneiric.core.document import read_document
from oneiric.core.domain import DOMAINS
from oneiric.core.entry import BATCH, FIELDS, _is_plain, _problems
from oneiric.core.manifest import (
    Entry,
    Manifest,
    Signature,
    canonical_bytes,
    iterate_entries,
    parse_manifest,
    read_packed,
    read_strictly,
)
from oneiric.errors import ManifestError
from tests.core.test_document import documents, texts, values
from tests.remote.publisher import covered, document, entry, packed, signed

SAMPLES = {path.stem[-2:]: path for path in (Path(__file__).parents[1] / "samples").glob("*.yaml")}
PLAIN = "abcdefghijklmnopqrstuvwxyz_"  # of which names of fields are made
every_sample = pytest.mark.parametrize("sample", SAMPLES)


def refusal(found: dict[str, Any]) -> str:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(found)
    return str(caught.value)


# Samples


@every_sample
def test_sample_is_a_manifest(sample: str) -> None:
    found = parse_manifest(read_document(SAMPLES[sample].read_bytes()))
    assert (found.source, len(found.entries)) == {"v1": ("sample-demo", 35), "v2": ("oneiric-production-v2", 31)}[
        sample
    ]


@every_sample
def test_sample_keeps_every_field_of_every_entry(sample: str) -> None:
    published = yaml.safe_load(SAMPLES[sample].read_text())["entries"]
    found = parse_manifest(read_document(SAMPLES[sample].read_bytes())).entries
    kept = [
        {name: msgspec.to_builtins(getattr(one, name)) for name in said}
        for one, said in zip(found, published, strict=True)
    ]
    assert json.loads(json.dumps(kept)) == published
    assert [one.extra for one in found] == [{}] * len(found)


@every_sample
def test_sample_says_the_same_packed(sample: str) -> None:
    read = read_document(SAMPLES[sample].read_bytes())
    reading = read_packed(packed(read))
    assert reading is not None
    assert parse_manifest(reading.document) == parse_manifest(read)


@every_sample
def test_every_entry_of_a_sample_can_become_a_candidate(sample: str) -> None:
    for one in parse_manifest(read_document(SAMPLES[sample].read_bytes())).entries:
        Candidate(
            slot=Slot[Any](one.domain, one.key),
            provider=one.provider,
            factory=one.factory,
            stack_level=one.stack_level,
            priority=one.priority,
            version=one.version,
            capabilities=frozenset(one.capabilities),
            requires=one.requires,
            python_version=one.python_version,
            os_platform=one.os_platform,
            metadata=one.metadata,
        )


# The head


def test_head_is_read() -> None:
    found = parse_manifest(document(signed_at="2030-01-15T12:00:00.5+01:00", owner="shop"))
    assert (found.source, found.manifest_version) == ("shop", 5)
    assert found.signed_at == datetime(2030, 1, 15, 11, 0, 0, 500_000, tzinfo=UTC)
    assert found.expires_at == datetime(2030, 2, 14, 11, tzinfo=UTC)
    assert found.extra == {"owner": "shop"}


def test_head_may_say_nothing_but_its_entries() -> None:
    assert parse_manifest({"entries": []}) == Manifest(source="remote")


def test_null_counts_as_not_given() -> None:
    blank = dict.fromkeys(("source", "signature", "signature_algorithm", "signatures", "signed_at", "manifest_version"))
    assert parse_manifest({"entries": [], **blank}) == Manifest(source="remote")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"signature": "a"}, [Signature(signature="a")]),
        ({"signature": "a", "signature_algorithm": "x"}, [Signature(signature="a", algorithm="x")]),
        ({"signature_algorithm": "ed25519"}, []),
        ({"signatures": ["a"]}, [Signature(signature="a")]),
        ({"signatures": [{"signature": "a", "key_id": "k"}]}, [Signature(signature="a", key_id="k")]),
        ({"signature": "a", "signatures": ["b"]}, [Signature(signature="a"), Signature(signature="b")]),
    ],
)
def test_signatures_are_read_in_every_published_form(given: dict[str, Any], kept: list[Signature]) -> None:
    assert list(parse_manifest(document(**given)).signatures) == kept


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"source": "a b"}, "source: 'a b' is not a name"),
        ({"source": "shop\n"}, "source: 'shop\\n' is not a name"),
        ({"source": 5}, "source: expected text, found a number"),
        ({"entries": None}, "entries: is missing"),
        ({"entries": {}}, "entries: is not a list"),
        ({"manifest_version": "5"}, "manifest_version: expected a whole number, found text"),
        ({"manifest_version": 5.0}, "manifest_version: expected a whole number, found a decimal number"),
        ({"manifest_version": True}, "manifest_version: expected a whole number, found a boolean"),
        ({"manifest_version": 0}, "manifest_version: 0 is out of range"),
        ({"manifest_version": 2**53}, f"manifest_version: {2**53} is out of range"),
        ({"signature": 5}, "signature: expected text, found a number"),
        ({"signatures": "a"}, "signatures: expected a list, found text"),
        ({"signatures": [5]}, "signatures[0]: expected a mapping, found a number"),
        ({"signatures": ["a", {"key_id": "k"}]}, "signatures[1]: lacks the key 'signature'"),
        ({"signed_at": 5}, "signed_at: expected text, found a number"),
        ({"signed_at": "yesterday"}, "signed_at: 'yesterday' is not an instant"),
        ({"signed_at": "2030-01-01"}, "signed_at: '2030-01-01' is not an instant"),
        ({"expires_at": "2030-01-01T00:00:00"}, "expires_at: '2030-01-01T00:00:00' is not an instant"),
        ({"expires_at": "2030-13-01T00:00:00Z"}, "expires_at: '2030-13-01T00:00:00Z' is not an instant"),
        ({"expires_at": "9999-12-31T23:59:59-23:59"}, "expires_at: '9999-12-31T23:59:59-23:59' is not an instant"),
    ],
)
def test_head_that_is_wrong_is_refused(changed: dict[str, Any], words: str) -> None:
    assert words in refusal(document(**changed))


# Entries


def test_entry_keeps_what_the_format_does_not_know_aside() -> None:
    (found,) = parse_manifest(document(entry(colour="red", extra=5, metadata={"extra": 1}))).entries
    assert (found.extra, found.metadata) == ({"colour": "red", "extra": 5}, {"extra": 1})


def test_field_called_extra_is_read_the_same_in_a_packed_manifest() -> None:
    reading = read_packed(packed(document(entry(extra={"a": 1}))))
    assert reading is not None
    assert parse_manifest(reading.document).entries[0].extra == {"extra": {"a": 1}}


def test_null_in_an_entry_counts_as_not_given() -> None:
    blank = dict.fromkeys(FIELDS - {"domain", "key", "provider", "factory"})
    plain = {"domain": "task", "key": "k", "provider": "p", "factory": "m:f"}
    assert parse_manifest({"entries": [{**plain, **blank}]}) == parse_manifest({"entries": [plain]})


def test_digest_is_lowered() -> None:
    assert parse_manifest(document(entry(sha256="AB" * 32))).entries[0].sha256 == "ab" * 32


def test_capability_may_be_described_and_is_known_by_its_name() -> None:
    described = [{"name": "ttl", "description": "expires"}, "kv"]
    (found,) = parse_manifest(document(entry(capabilities=described))).entries
    assert (found.capabilities, found.extra) == (("ttl", "kv"), {"capabilities": described})


BAD_ENTRIES = [
    (5, "entries[1]: not a mapping"),
    ({}, "entries[1]: lacks the key 'domain'"),
    ({"domain": "kitchen"}, "entries[1].domain: 'kitchen' is none"),
    ({"domain": "adapter\n"}, "entries[1].domain: 'adapter\\n' is none"),
    ({"key": 5}, "entries[1].key: expected text, found a number"),
    ({"key": "cache\n"}, "entries[1].key: 'cache\\n' is not a name"),
    ({"key": "."}, "entries[1].key: '.' is not a name"),
    ({"key": "a..b"}, "entries[1].key: 'a..b' is not a name"),
    ({"key": "Cache"}, "entries[1].key: 'Cache' is not a name"),
    ({"provider": "a/b"}, "entries[1].provider: 'a/b' is not a name"),
    ({"provider": ""}, "entries[1].provider: '' is not a name"),
    ({"factory": "shop.cache"}, "entries[1].factory: 'shop.cache' is not a path"),
    ({"factory": "oneiric.cli:main\n"}, "entries[1].factory: 'oneiric.cli:main\\n' is not a path"),
    ({"factory": "../shop:Cache"}, "entries[1].factory: '../shop:Cache' is not a path"),
    ({"uri": ""}, "entries[1].uri: is empty"),
    ({"sha256": None}, "entries[1].sha256: is missing, and there is a uri"),
    ({"sha256": "ab" * 31}, "is no digest"),
    ({"sha256": "../" * 20 + "abcd"}, "is no digest"),
    ({"sha256": "ab" * 32 + "\n"}, "is no digest"),
    ({"sha256": "٣" * 64}, "is no digest"),
    ({"uri": None, "sha256": "x"}, "entries[1].sha256: 'x' is no digest"),
    ({"length": 0}, "entries[1].length: expected a whole number, at least 1"),
    ({"length": "5"}, "entries[1].length: expected a whole number, found text"),
    ({"length": 5.0}, "entries[1].length: expected a whole number, found a decimal number"),
    ({"priority": "high"}, "entries[1].priority: expected a whole number, found text"),
    ({"priority": True}, "entries[1].priority: expected a whole number, found a boolean"),
    ({"priority": 2**60}, "entries[1].priority: expected a whole number, at most 9007199254740992"),
    ({"stack_level": 1.5}, "entries[1].stack_level: expected a whole number, found a decimal number"),
    ({"version": "one"}, "entries[1].version: 'one' cannot be read"),
    ({"version": 1.0}, "entries[1].version: expected text, found a decimal number"),
    ({"version": "9" * 5000}, "entries[1].version: "),
    ({"metadata": []}, "entries[1].metadata: expected a mapping, found a list"),
    ({"capabilities": "kv"}, "entries[1].capabilities: expected a list, found text"),
    ({"capabilities": ["kv", 5]}, "entries[1].capabilities[1]: expected text, found a number"),
    ({"capabilities": [{}]}, "entries[1].capabilities[0]: expected text, found nothing"),
    ({"requires_secrets": "yes"}, "entries[1].requires_secrets: expected true or false, found text"),
    ({"timeout_seconds": 0}, "entries[1].timeout_seconds: expected a number, more than 0"),
    ({"requires": ["redis >= five"]}, "entries[1].requires: 'redis >= five' cannot be read"),
    ({"requires": ["a; " + "(" * 5000]}, "entries[1].requires: "),
    ({"python_version": "3.11"}, "entries[1].python_version: '3.11' cannot be read"),
    ({"os_platform": "linux"}, "entries[1].os_platform: expected a list, found text"),
    ({"event_max_concurrency": 0}, "entries[1].event_max_concurrency: expected a whole number, at least 1"),
    ({"event_filters": ["x"]}, "entries[1].event_filters[0]: expected a mapping, found text"),
    ({"dag": []}, "entries[1].dag: expected a mapping, found a list"),
    (entry(1), "entries[1].provider: 'redis' is offered for adapter/cache-1 already by entries[0]"),
]


@pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize(("bad", "words"), BAD_ENTRIES, ids=[words for _, words in BAD_ENTRIES])
def test_one_bad_entry_rejects_the_manifest_with_its_index_and_field(bad: Any, words: str, is_packed: bool) -> None:
    second = {**entry(2), **bad} if bad and isinstance(bad, dict) else bad
    if isinstance(second, dict):
        second = {name: value for name, value in second.items() if value is not None}
    found: Any = document(entry(1), second, entry(3))
    if is_packed:
        reading = read_packed(packed(found))
        assert reading is not None
        found = reading.document
    assert words in refusal(found)


def test_bad_entry_is_counted_from_the_beginning_also_after_many_batches() -> None:
    rows = [entry(number) for number in range(3 * BATCH)]
    rows[2 * BATCH + 7]["priority"] = "high"
    assert f"entries[{2 * BATCH + 7}].priority" in refusal(document(*rows))


def test_same_offer_twice_is_found_across_batches() -> None:
    rows = [entry(number) for number in range(2 * BATCH)]
    assert f"entries[{2 * BATCH}].provider: 'redis' is offered" in refusal(document(*rows, entry(3)))


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_entries_come_in_batches_and_in_order(batch: int) -> None:
    rows = [entry(number) for number in range(7)]
    batches = list(iterate_entries(rows, batch=batch))
    assert [len(found) for found in batches[:-1]] == [batch] * (len(batches) - 1)
    assert [one.key for found in batches for one in found] == [row["key"] for row in rows]


def test_entries_are_decoded_when_they_are_asked_for() -> None:
    rows: list[Any] = [entry(number) for number in range(4)]
    rows[3] = "bad"
    batches = iterate_entries(rows, batch=2)
    assert [one.key for one in next(batches)] == ["cache-0", "cache-1"]


@given(st.text(max_size=6), st.text(max_size=6), st.text(max_size=12), st.none() | st.text(max_size=70))
def test_what_passes_at_a_glance_passes_a_closer_look(
    key: str, provider: str, factory: str, digest: str | None
) -> None:
    found = Entry(domain="task", key=key, provider=provider, factory=factory, sha256=digest)
    assert not _is_plain(found) or list(_problems(found)) == []


@given(
    st.sampled_from([*DOMAINS, "kitchen"]),
    st.from_regex(r"\A[a-z0-9.]{1,4}\n?\Z"),
    st.from_regex(r"\A[A-Za-z0-9_.]{1,4}:[A-Za-z0-9_.]{1,4}\n?\Z"),
)
def test_glance_and_closer_look_agree_about_names(domain: str, name: str, factory: str) -> None:
    found = Entry(domain=domain, key=name, provider=name, factory=factory)
    assert _is_plain(found) == (domain in DOMAINS and is_name(name) and is_factory_path(factory))


def nested(depth: int) -> Any:
    return 1 if depth == 0 else [nested(depth - 1)]


@pytest.mark.parametrize("field", ["metadata", "dag", "retry_policy", "colour"])
def test_depth_of_a_packed_entry_is_bounded(field: str) -> None:
    reading = read_packed(packed(document(entry(**{field: {"a": nested(40)}}))))
    assert reading is not None
    assert "nested more than 32 levels deep" in refusal(dict(reading.document))


# Which bytes


@given(documents)
def test_canonical_bytes_are_those_of_plain_json_dumps(found: dict[str, Any]) -> None:
    assert canonical_bytes(found) == covered(found)


@given(documents, values, texts)
def test_signatures_are_not_covered(found: dict[str, Any], value: Any, name: str) -> None:
    added = {"signature": value, "signature_algorithm": name, "signatures": [value]}
    assert canonical_bytes({**found, **added}) == covered({**found, **dict.fromkeys(added)})


@given(st.lists(values, max_size=3), st.dictionaries(st.text(PLAIN, max_size=8), values, max_size=3))
def test_packed_document_covers_what_a_strict_reading_covers(rows: list[Any], more: dict[str, Any]) -> None:
    content = packed(signed({**more, "entries": rows}))
    reading = read_packed(content)
    assert reading is not None
    assert reading.signed == read_strictly(content).signed


@given(st.lists(values, max_size=3), st.dictionaries(st.text(PLAIN, max_size=8), values, max_size=3))
def test_packed_reading_says_what_a_strict_reading_says(rows: list[Any], more: dict[str, Any]) -> None:
    content = packed({**more, "entries": rows})
    reading = read_packed(content)
    assert reading is not None
    plain = [json.loads(bytes(row)) for row in reading.document["entries"]]
    assert {**reading.document, "entries": plain} == read_document(content)


@pytest.mark.parametrize(
    "content",
    [
        b'{"a":1,"entries":[],"a":1}',
        b'{"entries":[{}],"entries":[]}',
        b'{"entries":[],"entries":[]}',
        b'{ "entries":[]}',
        b'{"entries": []}',
        b'{"entries":[]}\n\n',
        b'{"entries":[]} ',
        b'\xef\xbb\xbf{"entries":[]}',
        b'{"\\u0065ntries":[]}',
        b'{"entries":[],"\\u0061":1}',
        b'{"a":{"b":1,"b":2},"entries":[]}',
        b'{"a":NaN,"entries":[]}',
        b'{"a":1}',
        b'{"entries":{}}',
        b'{"entries":[}',
        b'{"a":"\xff","entries":[]}',
        b"[" * 100_000,
        b"a: 1",
        b"",
    ],
)
def test_what_is_not_packed_to_the_byte_is_left_to_a_strict_reading(content: bytes) -> None:
    assert read_packed(content) is None


@pytest.mark.parametrize(
    "row",
    [
        b'{"domain":"task","factory":"m:f","key":"a","key":"b","provider":"p"}',
        b'{"domain":"task","factory":"m:f","key":"b","metadata":{"a":1,"a":1},"provider":"p"}',
        b'{"domain":"task","factory":"m:f","key":"b","provider":"p","x":{"a":1,"a":1}}',
    ],
)
def test_duplicate_key_in_a_packed_entry_is_refused(row: bytes) -> None:
    reading = read_packed(b'{"entries":[' + row + b"]}")
    assert reading is not None
    assert "entries[0]: line 1: duplicate key" in refusal(dict(reading.document))


def test_packed_entry_that_is_not_utf_8_is_refused() -> None:
    reading = read_packed(b'{"entries":[{"domain":"\xff"}]}')
    assert reading is not None
    assert "entries[0]: not UTF-8" in refusal(dict(reading.document))


def test_one_line_feed_may_end_a_packed_document() -> None:
    assert read_packed(b'{"entries":[]}\n') is not None
