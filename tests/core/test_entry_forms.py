"""An entry says the same whether it is read from packed bytes, at a glance, or from plain values, one by one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oneiric.core.entry import FIELDS, Entry, iterate_entries
from oneiric.core.json_document import DEPTH, JSON_VALUES
from oneiric.core.manifest import Reading, parse_manifest, read_packed, read_strictly
from oneiric.errors import ManifestError

ENTRY = {"domain": "adapter", "key": "cache", "provider": "redis", "factory": "shop.cache:Redis"}
UPPER = {"uri": "x.whl", "sha256": "AB" * 32}


def read(row: Any) -> list[Entry] | str:
    """Return what a list of one entry is, or why it is none."""
    try:
        return next(iterate_entries([row]))
    except ManifestError as error:
        return str(error)


def pack(fields: dict[str, Any]) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    "fields",
    [
        {"priority": 0},
        {"owner": "", "capabilities": [], "metadata": {}},
        {"owner": "Zoë", "metadata": {"é": "\U0001f600"}},
        UPPER,
        {**UPPER, "priority": 0},
        {"uri": None, "priority": 0},
        {"version": None},
        {"length": 5.0},
        {"priority": 1.5},
        {"timeout_seconds": 5},
        {"metadata": {"n": -0.0, "m": 1.5e300}},
        {"metadata": {"n": (1 << 64) - 1}},
        {"unheard_of": 1},
        {"extra": {"n": 1}},
        {"extra": {}, "priority": 0},
        {"capabilities": [{"name": "ttl"}]},
    ],
    ids=str,
)
def test_packed_entry_reads_as_the_plain_one_does(fields: dict[str, Any]) -> None:
    row = {**ENTRY, **fields}
    assert read(pack(row)) == read(row)


def sorted_row(metadata: str, *others: str) -> msgspec.Raw:
    """Return an entry as it would be packed, but for what *metadata* and *others* say."""
    fields = ['"domain":"adapter","factory":"shop.cache:Redis","key":"cache"', f'"metadata":{metadata}']
    return msgspec.Raw(("{" + ",".join([*fields, *others, '"provider":"redis"']) + "}").encode())


@pytest.mark.parametrize("metadata", ['{"n":1,"n":1}', '{"n":1e999}', '{"n":"\\ud800"}', '{"n":NaN}'])
@pytest.mark.parametrize("others", [(), ('"priority":0',)], ids=["", "default"])
def test_packed_entry_that_is_no_strict_json_is_refused(metadata: str, others: tuple[str, ...]) -> None:
    assert isinstance(read(sorted_row(metadata, *others)), str)


@pytest.mark.parametrize("others", [('"priority":0', '"priority":0'), ('"owner":"a"', '"owner":"b"')], ids=str)
def test_packed_entry_with_a_field_twice_is_refused(others: tuple[str, ...]) -> None:
    assert "duplicate key" in str(read(sorted_row("{}", *others)))


def test_packed_entry_in_order_is_read() -> None:
    assert isinstance(read(sorted_row('{"n":1}', '"priority":0')), list)


# A whole manifest, read both ways


def said_by(read: Callable[[bytes], Reading | None], content: bytes) -> str | None:
    """Return what *content* says to who uses *read*, and reads strictly where that tells nothing; None if refused."""
    try:
        return repr(parse_manifest((read(content) or read_strictly(content)).document))
    except ManifestError:
        return None


def manifest(*rows: str) -> bytes:
    return f'{{"entries":[{",".join(rows)}],"source":"shop"}}'.encode()


def nested(depth: int) -> str:
    """Return a list in lists, *depth* of them."""
    return "[" * depth + "]" * depth


WHOLE = st.integers(-(1 << 66), 1 << 66) | st.sampled_from([(1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, -(1 << 63)])
NUMBERS = st.one_of(
    WHOLE.map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["-0", "-0.0", "1e5", "1E5", "1e999", "NaN", "Infinity", "1" * 400, "01", "1.", "5.0"]),
)
TEXTS = st.text(max_size=3).map(json.dumps) | st.text(max_size=3).map(lambda text: json.dumps(text, ensure_ascii=False))
SCALARS = st.one_of(
    NUMBERS, TEXTS, st.sampled_from(["null", "true", "false", '"\\ud800"', '"\\u0041"', "[]", "{}", " 1"])
)


def mappings(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Draw mappings as JSON; a key may be there twice."""
    pairs = st.tuples(st.sampled_from(['"a"', '"b"', '"c"', '"é"', '"\\u00e9"']), values)
    return st.lists(pairs, max_size=3).map(lambda some: "{" + ",".join(f"{key}:{value}" for key, value in some) + "}")


def lists(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(values, max_size=3).map(lambda some: f"[{','.join(some)}]")


VALUES = st.recursive(SCALARS, lambda inner: mappings(inner) | lists(inner), max_leaves=6) | st.integers(
    DEPTH - 6, DEPTH + 1
).map(nested)
GIVEN = {name: json.dumps(value) for name, value in ENTRY.items()}
FREE = ["metadata", "retry_policy", "dag"]


def row_of(fields: dict[str, str], in_order: bool) -> str:
    """Return an entry with *fields*, given as JSON, besides those that each has."""
    names = {**fields, **GIVEN}
    ordered = sorted(names) if in_order else list(names)
    return "{" + ",".join(f'"{name}":{names[name]}' for name in ordered) + "}"


FIELD = st.one_of(
    st.tuples(st.sampled_from(FREE), mappings(VALUES)),
    st.tuples(st.just("event_filters"), lists(mappings(VALUES))),
    st.tuples(st.sampled_from(sorted(FIELDS - ENTRY.keys())), VALUES),
    st.tuples(st.sampled_from(["extra", "unheard_of"]), VALUES),
)
ROWS = st.builds(row_of, st.lists(FIELD, max_size=3).map(dict), st.booleans())


@given(ROWS)
@example(row_of({"metadata": f'{{"n":{1 << 64}}}'}, True))
@example(row_of({"metadata": f'{{"n":{-(1 << 63) - 1}}}', "priority": "0"}, True))
@example(row_of({"event_filters": f'[{{"a":{nested(DEPTH - 4)}}}]'}, True))
@example(row_of({"metadata": f'{{"a":{nested(DEPTH - 4)}}}'}, True))
def test_packed_manifest_says_what_a_strict_reading_of_it_says(row: str) -> None:
    content = manifest(row)
    assert said_by(read_packed, content) == said_by(read_strictly, content)


def test_packed_manifest_with_more_values_than_are_read_is_left_to_the_strict_reading() -> None:
    row = row_of({"metadata": f'{{"n":[{"0," * JSON_VALUES}0]}}'}, True)
    is_left = read_packed(manifest(row)) is None
    assert is_left
