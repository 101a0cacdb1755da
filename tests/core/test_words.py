"""Numbers and kinds of values in sentences, and what msgspec says in our words."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest

from oneiric.core.words import misfit, plural, reworded


class Row(msgspec.Struct):
    whole: Annotated[int, msgspec.Meta(ge=-2)] = 0
    seconds: Annotated[float, msgspec.Meta(gt=0)] | None = None
    names: tuple[str, ...] = ()
    free: dict[str, Any] = {}
    is_on: bool = False


class Named(msgspec.Struct):
    name: str


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 entries"), (1, "1 entry"), (2, "2 entries"), (1234, "1,234 entries")]
)
def test_number_of_something_agrees_with_its_noun(number: int, words: str) -> None:
    assert plural(number, "entry", "entries") == words


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"whole": "1"}, "expected a whole number, found text"),
        ({"whole": 1.5}, "expected a whole number, found a decimal number"),
        ({"whole": -3}, "expected a whole number, at least -2"),
        ({"seconds": 0}, "expected a number, more than 0"),
        ({"seconds": []}, "expected a number, found a list"),
        ({"names": [None]}, "expected text, found nothing"),
        ({"names": "a"}, "expected a list, found text"),
        ({"free": 5}, "expected a mapping, found a number"),
        ({"is_on": {}}, "expected true or false, found a mapping"),
    ],
)
def test_value_that_does_not_fit_is_told_in_our_words(row: dict[str, Any], words: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(row, Row)
    assert reworded(str(caught.value)).startswith(words)


def test_missing_field_is_a_key_that_lacks() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({}, Named)
    assert reworded(str(caught.value)) == "lacks the key 'name'"


def test_message_of_another_kind_is_kept() -> None:
    assert reworded("Invalid `enum` value 5") == "invalid enum value 5"


def test_misfit_names_both_kinds() -> None:
    assert misfit(str, True) == "expected text, found a boolean"
