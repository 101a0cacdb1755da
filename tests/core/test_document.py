"""Documents: exactly one reading of the bytes, or none."""

from __future__ import annotations

import json
import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from oneiric.core.document import read_document
from oneiric.core.json_document import DEPTH, JSON_VALUES, read_json
from oneiric.core.yaml_document import YAML_VALUES
from oneiric.errors import ManifestError

SAMPLES = sorted((Path(__file__).parents[1] / "samples").glob("*.yaml"))

texts = st.text(st.characters(codec="utf-8"), max_size=8)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | texts
finite = scalars.filter(lambda value: not isinstance(value, float) or math.isfinite(value))
values = st.recursive(
    finite, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
documents = st.dictionaries(texts, values, max_size=5)


def refusal(content: str | bytes) -> str:
    with pytest.raises(ManifestError) as caught:
        read_document(content if isinstance(content, bytes) else content.encode())
    return str(caught.value)


# What is read


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_sample_reads_as_yaml_reads_it(path: Path) -> None:
    assert read_document(path.read_bytes()) == yaml.safe_load(path.read_text())


@given(documents)
def test_json_reads_as_it_was_written(document: dict[str, Any]) -> None:
    assert read_document(json.dumps(document).encode()) == document


@given(documents)
def test_json_with_spaces_and_characters_reads_the_same(document: dict[str, Any]) -> None:
    assert read_document(b" \n" + json.dumps(document, indent=2, ensure_ascii=False).encode()) == document


@given(documents.filter(bool))
def test_yaml_reads_as_it_was_written(document: dict[str, Any]) -> None:
    assert read_document(yaml.safe_dump(document, default_flow_style=False).encode()) == document


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("yes", True),
        ("Off", False),
        ("~", None),
        ("", None),
        ("010", 8),
        ("0x1F", 31),
        ("1_000", 1000),
        ("1:30", 90),
        ("1.5", 1.5),
        ("1e3", "1e3"),
        ("18446744073709551615", 2**64 - 1),
        ("text", "text"),
        ("'1'", "1"),
        ("=", "="),
    ],
)
def test_unquoted_word_means_what_pyyaml_takes_it_for(written: str, value: Any) -> None:
    found = read_document(f"a: {written}".encode())["a"]
    assert (found, type(found)) == (value, type(value))


@given(st.text("0123456789abefxonyslut_.:+-~", min_size=1, max_size=7))
def test_word_never_means_two_things(word: str) -> None:
    content = f"a: {word}"
    try:
        ours = read_document(content.encode())
    except ManifestError:
        return
    theirs = yaml.safe_load(content)
    assert ours == theirs or isinstance(ours["a"], str)  # theirs is an instant then


@pytest.mark.parametrize("instant", ["2030-01-01", "2030-01-01T10:00:00Z", "2030-01-01 10:00:00+02:00"])
def test_instant_stays_text(instant: str) -> None:
    assert read_document(f"signed_at: {instant}".encode()) == {"signed_at": instant}


def test_byte_order_mark_is_no_part_of_a_document() -> None:
    assert read_document(b'\xef\xbb\xbf{"a":1}') == read_document(b"\xef\xbb\xbfa: 1") == {"a": 1}


def test_long_json_of_entries_is_read() -> None:
    content = b'{"entries":[' + b",".join(b'{"key":"k%d"}' % number for number in range(100_000)) + b"]}"
    assert len(read_document(content)["entries"]) == 100_000


# What is refused


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"a":1,\n"b":2,\n"a":3}', "line 3: duplicate key 'a'"),
        ('{"a":[{"b":1},\n{"c":{"d":1,\n"d":2}}]}', "line 3: duplicate key 'd'"),
        ('{"a":1,\n"\\u0061":3}', "line 2: duplicate key 'a'"),
        ('{"x":"\\"a\\":",\n"a":{"}":1},\n"a":1}', "line 3: duplicate key 'a'"),
        ("a: 1\nb: 2\na: 3\n", "line 3: duplicate key 'a'"),
        ("a:\n  - {b: 1, c: 2,\n     b: 3}\n", "line 3: duplicate key 'b'"),
        ("a: 1\n'a': 2", "line 2: duplicate key 'a'"),
        ("a: &x 1", "line 1: anchors are not supported"),
        ("a: 1\nb: *x", "line 2: aliases are not supported"),
        ("a: !!str 1", "line 1: tags are not supported"),
        ("a: !x {}", "line 1: tags are not supported"),
        ("!!map {a: 1}", "line 1: tags are not supported"),
        ("a:\n  <<: {b: 1}", "line 2: merge keys (<<) are not supported"),
        ("a: 1\n---\nb: 2", "line 2: a second document starts here"),
        ("a: 1\n...\n---\n", "line 3: a second document starts here"),
        ("5: a", "line 1: the key is not text"),
        ("a: 1\nyes: a", "line 2: the key is not text"),
        ("? [a]\n: b", "line 1: the key is not text"),
        ('{"a":NaN}', "NaN is not a number that JSON knows"),
        ('{"a":-Infinity}', "-Infinity is not a number that JSON knows"),
        ('{"a":1e999}', "the number '1e999' is not finite"),
        ('{"a":18446744073709551616}', "the number '18446744073709551616' does not fit 64 bits"),
        ('{"a":-9223372036854775809}', "the number '-9223372036854775809' does not fit 64 bits"),
        ("a: .inf", "line 1: the number '.inf' is not finite"),
        ("a: 1\nb: .NaN", "line 2: the number '.NaN' is not finite"),
        ("a: 1.0e+400", "line 1: the number '1.0e+400' is not finite"),
        ("a: 0b_", "line 1: the number '0b_' is not finite, or does not fit 64 bits"),
        (f"a: {2**64}", f"line 1: the number '{2**64}' is not finite, or does not fit 64 bits"),
        ('{"a":"\\ud800"}', "a text holds half a surrogate pair"),
        ('{"\\udfff":1}', "a text holds half a surrogate pair"),
        ("{a: 1}", "line 1: not valid JSON"),
        ('{"a":1}\n{"b":2}', "line 2: not valid JSON: Extra data"),
        ("a: 'b\n", "line 2: not valid YAML"),
        ("a: \x07", "not valid YAML: control characters are not allowed"),
        (b"a: \xff", "not UTF-8: byte 3 is 0xff"),
        ("a: 1".encode("utf-16"), "not UTF-8: byte 0 is 0xff"),
        ("", "the document is not a mapping"),
        ("# nothing", "the document is not a mapping"),
        ("[]", "the document is not a mapping"),
        ("- a", "the document is not a mapping"),
        ("text", "the document is not a mapping"),
    ],
)
def test_document_that_could_surprise_is_refused(content: str | bytes, words: str) -> None:
    assert words in refusal(content)


@pytest.mark.parametrize("depth", [40, 900])
def test_duplicate_key_is_named_also_where_it_lies_too_deep_to_look_for(depth: int) -> None:
    assert refusal('{"x":' + "[" * depth + '{"a":1,"a":2}' + "]" * depth + "}") == "duplicate key 'a'"


def test_duplicate_key_is_found_in_a_long_document() -> None:
    rows = '{"a":{"b":1}},\n' * 100_000
    assert refusal('{"entries":[' + rows + '{"a":{"b":1,\n"b":2}}]}') == "line 100002: duplicate key 'b'"


def test_message_repeats_no_more_than_a_line_of_what_was_written() -> None:
    assert len(refusal('{"' + "a" * 5000 + '":1,"' + "a" * 5000 + '":1}')) < 150


@pytest.mark.parametrize(("opening", "closing"), [('{"a":', "}"), ("[", "]")], ids=["mappings", "lists"])
@pytest.mark.parametrize("start", ['{"a":', "a: "], ids=["json", "yaml"])
def test_depth_is_bounded(start: str, opening: str, closing: str) -> None:
    def nested(depth: int) -> bytes:
        text = opening * (depth - 1) + "1" + closing * (depth - 1)
        return (start + text + ("}" if start[0] == "{" else "")).encode()

    assert read_document(nested(DEPTH))
    assert "nested more than 32 levels deep" in refusal(nested(DEPTH + 1))


def test_number_of_yaml_values_is_bounded() -> None:
    lines = "a:\n" + "- 1\n" * (YAML_VALUES - 3)
    assert len(read_document(lines.encode())["a"]) == YAML_VALUES - 3
    assert f"more than {YAML_VALUES:,} values" in refusal(lines + "- 1\n")


def test_number_of_json_values_is_bounded_before_they_are_read() -> None:
    with pytest.raises(ManifestError, match="more than 4,000,000 values"):
        read_json("[" + "1," * JSON_VALUES)  # which is not even JSON


BOMBS = {
    "aliases": b"a: &a [x,x,x,x,x,x,x,x]\n"
    + b"".join(b"%c: &%c [*%c,*%c]\n" % (c + 1, c + 1, c, c) for c in b"abcdefg"),
    "mappings in JSON": b'{"a":' * 200_000,
    "lists in JSON": b'{"a":' + b"[" * 1_000_000,
    "mappings in YAML": b"a: " + b"{" * 1_000_000,
    "lists in YAML": b"a: " + b"[" * 1_000_000,
    "dashes": b"- " * 500_000,
    "question marks": b"? " * 500_000,
    "keys": b"".join(b" " * depth + b"a:\n" for depth in range(1_000)),
    "tags": b"a: !" * 100_000,
    "directives": b"%TAG ! tag:x,2000:\n" * 100_000,
    "anchors": b"&a " * 100_000,
    "digits in JSON": b'{"a":' + b"9" * 1_000_000 + b"}",
    "digits in YAML": b"a: " + b"9" * 1_000_000,
    "sexagesimal": b"a: " + b"1:" * 3_000 + b"1",
    "hexadecimal": b"a: 0x" + b"f" * 1_000_000,
    "quotes": b'{"' + b'\\"' * 500_000,
    "one mapping of many keys": b'{"a":1,' + b",".join(b'"%d":1' % number for number in range(5_000)) + b',"a":1}',
    "commas": b'{"a":[' + b"1," * 5_000_000,
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_bomb_is_refused_at_once(bomb: bytes) -> None:
    def spent() -> float:
        started = time.process_time()
        refusal(bomb)
        return time.process_time() - started

    assert min(spent() for _ in range(3)) < 0.05


def read_or_refused(content: bytes) -> None:
    with suppress(ManifestError):
        assert isinstance(read_document(content), dict)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_mapping_or_refused(content: bytes) -> None:
    read_or_refused(content)


@given(st.text("{}[]:,\"\\ \n-?&*!|>%@`'#<=~.0123456789abeEfnulrtsiINy\ud7ff\x85\u2028", max_size=60))
@example("a: !<tag:yaml.org,2002:binary> x")
@example("%YAML 9.9\n--- a")
@example("a: 0x_")
@example("a: -.inf")
@example('{"a":"\\u0000"}')
def test_any_text_of_signs_is_a_mapping_or_refused(text: str) -> None:
    read_or_refused(text.encode())


@given(st.data(), st.sampled_from(SAMPLES))
def test_any_damage_to_a_sample_is_a_mapping_or_refused(data: st.DataObject, path: Path) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=5))
    read_or_refused(bytes(content))
