"""An entry says the same whether it is read from packed bytes, at a glance, or from plain values, one by one."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from oneiric.core.entry import Entry, iterate_entries
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
