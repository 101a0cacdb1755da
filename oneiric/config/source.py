"""Where settings come from: places in a file, a variable, a flag; and what is wrong there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from oneiric.errors import Problem

Trail = tuple[str | int, ...]  # keys and indexes that lead to a value
Position = tuple[int, int]  # line and column, from 1
_ENOUGH: Final = 100
_SHOWN: Final = 80  # characters of somebody's text that a message repeats


class Place(NamedTuple):
    """Where a value and its key stand, and how it was ``written`` if YAML takes that, unquoted, for more than text."""

    key: Position
    value: Position
    written: str = ""


class Source:
    """One file, variable or flag: gives the place of each value and collects problems. A variable has no positions."""

    def __init__(self, name: str, *, has_positions: bool = True) -> None:
        self.name = name
        self.places: dict[Trail, Place] = {}
        self._problems: list[tuple[Position, Problem]] = []
        self._has_positions = has_positions

    @property
    def problems(self) -> list[Problem]:
        """Every problem so far, from top to bottom."""
        return [problem for _, problem in sorted(self._problems, key=lambda entry: entry[0])[:_ENOUGH]]

    def origin(self, trail: Trail) -> str:
        """Return where the setting at *trail* was made."""
        place = self.places.get(trail)
        return self._where(place.key if place else None)

    def refuse(self, trail: Trail, what: str, accepted: str = "", *, at_key: bool = False) -> None:
        """Note what is wrong with the value at *trail*, or with its key."""
        if len(self._problems) >= _ENOUGH:  # not worth reading to the end
            return
        place = self.places.get(trail)
        position = (place.key if at_key else place.value) if place else None
        subject = f"{_cut(dotted(trail))}: " if trail and not at_key else ""
        self.refuse_at(position, f"{subject}{what}", accepted)

    def refuse_at(self, position: Position | None, what: str, accepted: str = "") -> None:
        """Note what is wrong at *position*."""
        self._problems.append((position or (0, 0), Problem(self._where(position), what, accepted)))

    def written(self, trail: Trail) -> str:
        """Return how the value at *trail* was written, if unquoted and not plainly text."""
        place = self.places.get(trail)
        return place.written if place else ""

    def _where(self, position: Position | None) -> str:
        return f"{self.name}:{position[0]}:{position[1]}" if position and self._has_positions else self.name


def dotted(trail: Trail) -> str:
    """Return *trail* as people write it: ``candidates[0].key``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{_plain(step)}" for step in trail).removeprefix(".")


def quoted(text: str) -> str:
    """Return *text* as a message repeats it: in quotes, cut, and a URL without what may hold a password."""
    scheme, is_url, _ = text.partition("://")
    return repr(f"{scheme[:_SHOWN]}://...") if is_url else repr(_cut(text))


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` if one of *known* is close to *word*."""
    from difflib import get_close_matches

    close = get_close_matches(word[:_SHOWN], list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _plain(key: str) -> str:
    return key if key.isprintable() else repr(key)
