"""The YAML that settings are written in: what JSON can say, and nothing that would surprise."""

from __future__ import annotations

import json
import time

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from oneiric.config.reader import LIMIT_BYTES, decode, parse
from oneiric.config.source import Source


def read(content):
    """Return what the bytes or text say, and the problems as an operator sees them."""
    source = Source("f.yml")
    text = decode(content if isinstance(content, bytes) else content.encode(), source)
    value = None if text is None else parse(text, source)
    return value, [str(problem) for problem in source.problems]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("text", "text"),
        ("'it''s'", "it's"),
        ('"a\\tb"', "a\tb"),
        ("|\n  two\n  lines\n", "two\nlines\n"),
        (">-\n  one\n  line\n", "one line"),
        ("5", 5),
        ("-5", -5),
        ("+5", 5),
        ("0", 0),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("1.", 1.0),
        ("-.5", -0.5),
        ("-9223372036854775808", -(2**63)),
        ("18446744073709551615", 2**64 - 1),
        ("true", True),
        ("Yes", True),
        ("OFF", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("[1, [a], {}]", [1, ["a"], {}]),
        ("{a: {b: [c]}}", {"a": {"b": ["c"]}}),
        ("\n  - a\n  - b: 1\n", ["a", {"b": 1}]),
    ],
)
def test_value_is_what_json_can_say(written, value):
    found, problems = read(f"a: {written}")

    assert problems == []
    assert found == {"a": value}
    assert type(found["a"]) is type(value)


@pytest.mark.parametrize(
    "written",
    [
        "2024-01-31",
        "2024-01-31T10:00:00Z",
        "010",
        "0o17",
        "0x1F",
        "0b11",
        "1:30",
        "190:20:30",
        "1_000",
        "1.2.3",
        "yEs",
        "y",
        "n",
        "nULL",
        "=",
        "a<<b",
        "::1",
        "007",
        "+",
    ],
)
def test_word_that_yaml_would_guess_at_stays_text(written):
    assert read(f"a: {written}") == ({"a": written}, [])


KEY = "the key is not text (text, in quotes where YAML takes it for something else)"
NUMBER = "is not finite, or too large a number (quote it if it is text)"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: &x 1", "f.yml:1:4: anchors are not supported (quote text that begins with &)"),
        ("a: *x", "f.yml:1:4: aliases are not supported (quote text that begins with *)"),
        ("a: !!str 1", "f.yml:1:4: tags are not supported (quote text that begins with !)"),
        ("a: !x {}", "f.yml:1:4: tags are not supported (quote text that begins with !)"),
        ("a: ! 1", "f.yml:1:4: tags are not supported (quote text that begins with !)"),
        ("a: [1, &x [2]]", "f.yml:1:8: anchors are not supported (quote text that begins with &)"),
        ("&x a: 1", "f.yml:1:1: anchors are not supported (quote text that begins with &)"),
        ("a:\n  <<: {b: 1}", "f.yml:2:3: merge keys (<<) are not supported (write out what it would merge)"),
        ("a: 1\n---\nb: 2", "f.yml:2:1: a second document starts here (one document)"),
        ("a: 1\n...\n---\n", "f.yml:3:1: a second document starts here (one document)"),
        ("a: .inf", f"f.yml:1:4: a: {NUMBER}"),
        ("a: [-.INF]", f"f.yml:1:5: a[0]: {NUMBER}"),
        ("a: .NaN", f"f.yml:1:4: a: {NUMBER}"),
        ("a: 1e999", f"f.yml:1:4: a: {NUMBER}"),
        (f"a: {10**30}", f"f.yml:1:4: a: {NUMBER}"),
        ('a: "\\0"', "f.yml:1:4: a: holds a NUL or half a surrogate pair (printable text)"),
        ("5: a", f"f.yml:1:1: {KEY}"),
        ("yes: a", f"f.yml:1:1: {KEY}"),
        ("{~: a}", f"f.yml:1:2: {KEY}"),
        ("? [a]\n: b", f"f.yml:1:3: {KEY}"),
        ("a: \x07", "f.yml:1:4: holds the control character U+0007 (printable text)"),
        ("a: 1\nb: \x00", "f.yml:2:4: holds the control character U+0000 (printable text)"),
    ],
)
def test_what_json_cannot_say_is_refused_with_its_place_and_a_remedy(text, problem):
    assert problem in read(text)[1]


def test_quoted_merge_sign_is_a_key():
    assert read('"<<": 1') == ({"<<": 1}, [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yml:3:1: duplicate key 'a' (it stands first at line 1:1)"),
        ("x:\n  a: 1\n  'a': 2\n", "f.yml:3:3: duplicate key 'a' (it stands first at line 2:3)"),
        ("[{a: 1, a: 2}]", "f.yml:1:9: duplicate key 'a' (it stands first at line 1:3)"),
        ('a: 1\n"\\x61": 2\n', "f.yml:2:1: duplicate key 'a' (it stands first at line 1:1)"),
    ],
)
def test_duplicate_key_is_refused_with_both_places(text, problem):
    assert read(text)[1] == [problem]


def test_same_key_in_two_mappings_is_no_duplicate():
    assert read("a: {k: 1}\nb: {k: 2}\n") == ({"a": {"k": 1}, "b": {"k": 2}}, [])


def test_every_duplicate_is_reported():
    assert len(read("a: 1\n" * 4)[1]) == 3


def nested(depth):
    return "[" * depth + "]" * depth


def test_greatest_accepted_depth_is_read():
    assert read("a: " + nested(31))[1] == []


@pytest.mark.parametrize("text", ["a: " + nested(33), "{a: " * 40, "? " * 100_000, "- " * 100_000])
def test_deeper_nesting_is_refused(text):
    (problem,) = read(text)[1]

    assert problem.startswith("f.yml:1:")
    assert problem.endswith("nested more than 32 levels deep (settings are smaller than this)")


def test_too_many_values_are_refused():
    (problem,) = read("a: [" + "1," * 50_001 + "]")[1]

    assert problem.startswith("f.yml:1:99999: ")
    assert problem.endswith("more than 50,000 values (settings are smaller than this)")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: [", "f.yml:1:5"),
        ("a: [\n", "f.yml:2:1"),
        ("a: [é, ", "f.yml:1:8"),
        ("a: b: c", "f.yml:1:5"),
        ("a: 'b", "f.yml:1:6"),
        ("a: 1\n\tb: 2", "f.yml:2:1"),
        ("%YAML 9.9\n---\n", "f.yml:1:1"),
        ("a: @x", "f.yml:1:4"),
    ],
)
def test_malformed_yaml_is_refused_where_it_breaks(text, place):
    (problem,) = [problem for problem in read(text)[1] if "not valid YAML" in problem]

    assert problem.startswith(f"{place}: not valid YAML: ")
    assert problem.endswith("(look for a quote, bracket or colon that is missing, or a tab)")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a: gr\xf6\xdfe", "f.yml: is not UTF-8: byte 5 is 0xf6 (text, saved as UTF-8)"),
        ("a: 1".encode("utf-16"), "f.yml: is not UTF-8: byte 0 is 0xff (text, saved as UTF-8)"),
        (b"a: \xed\xa0\x80", "f.yml: is not UTF-8: byte 3 is 0xed (text, saved as UTF-8)"),
    ],
)
def test_bytes_that_are_not_utf_8_are_refused(content, problem):
    assert read(content) == (None, [problem])


def test_origin_is_the_place_of_the_key():
    source = Source("f.yml")
    parse("a:\n  b:   [x, {c: 1}]\n", source)

    assert source.origin(("a", "b")) == "f.yml:2:3"
    assert source.origin(("a", "b", 1, "c")) == "f.yml:2:13"


@pytest.mark.parametrize("key", ["k" * 100_000, "k\n\x1b[2J" * 3])
def test_message_about_a_hostile_key_is_one_short_line(key):
    (problem,) = read(f"? {json.dumps(key)}\n: 1\n? {json.dumps(key)}\n: 2\n")[1]

    assert problem.isprintable()
    assert len(problem) < 200


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
KEYS = TEXT | st.sampled_from(["yes", "null", "1", "<<", "2024-01-01", "a: b", "#", "&a", "*a", "!t", ""])


def values(texts):
    numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    return st.recursive(
        st.none() | st.booleans() | numbers | texts,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=20,
    )


def no_number(text):
    """Return *text*, or another in place of one like ``1e5``: PyYAML leaves it unquoted, and we read a number."""
    try:
        float(text)
    except ValueError:
        return text
    return f"x{text}"


@given(values(KEYS.map(no_number)))
@example({"a": "\x85\u2028\ufeff\x7f"})
def test_json_able_value_survives_being_written_as_yaml(value):
    assert read(yaml.dump(value, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))) == (value, [])


@given(values(KEYS))
@example({"a": {"b": [1.5e-300, -0.0, 1e22]}, "1e5": "1E5"})
def test_json_able_value_survives_being_written_as_json(value):
    # JSON is YAML but for characters that YAML wants to be escaped, and for its halves of surrogate pairs.
    text = json.dumps(value, ensure_ascii=False, indent=1)
    for code in (*range(0x7F, 0xA0), 0xFEFF, 0xFFFE, 0xFFFF, 0x2028, 0x2029):
        text = text.replace(chr(code), f"\\u{code:04x}")

    assert read(text) == (value, [])


YAMLISH = st.text("ab:-?[]{},#&*!|>'\"%@`\\\n\t 0.~<=eyno", max_size=300).map(str.encode)


@given(st.binary(max_size=300) | YAMLISH | st.text(max_size=300).map(str.encode))
@example(b"? ? ? ?")
@example(b"a: .e5")
@example(b"%YAML 9.9\n---\na: 1")
@example(b'a: "\\ud800"')
@example(b"\xef\xbb\xbf\xef\xbb\xbfa: 1")
@example(b"a: 1\n--- >\n%")
@example(b"'''")
def test_any_bytes_give_a_value_or_a_problem(content):
    value, problems = read(content)

    assert not problems or all(problem.startswith("f.yml") for problem in problems)
    json.dumps(value, allow_nan=False)


@pytest.mark.parametrize(
    "unit",
    ["[", "{a: ", "? ", "- ", ":", '"', "\t", "#\n", "a: &", "1", "1e", "k: 1\n", "[1,", "a: |\n ", "\\", "&a *a "],
)
def test_file_of_the_greatest_size_is_read_quickly(unit):
    content = (unit * (LIMIT_BYTES // len(unit))).encode()
    started = time.process_time()

    read(content)

    assert time.process_time() - started < 5
