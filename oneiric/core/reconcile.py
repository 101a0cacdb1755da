"""What has to happen after candidates or settings changed, as a plan."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from oneiric.core.candidate import Candidate, Slot
from oneiric.core.resolution import Resolution


class Build(NamedTuple):
    """What an instance was, or would be, built from. Two equal builds make interchangeable instances."""

    candidate: Candidate[Any]
    settings: str

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What makes another instance necessary: not rank, which may change without one."""
        return self.candidate.provider, self.candidate.factory_path, self.candidate.version, self.settings


class Change(NamedTuple):
    """One step of the plan: what to do with a slot, and why."""

    slot: Slot[Any]
    action: Literal["activate", "swap", "keep"]
    provider: str
    reason: str


def plan(
    live: Mapping[Slot[Any], Build | None],
    wanted: Mapping[Slot[Any], tuple[Resolution, Build | None]],
    eager: Iterable[Slot[Any]] = (),
    held: Container[Slot[Any]] = frozenset(),
) -> tuple[Change, ...]:
    """Compare what is live with what the resolver now wants and return the steps that lead there, sorted by slot.

    Args:
        live: what each live slot was built from; None where a slot was asked for and its activation failed.
        wanted: the new resolution of every live and eager slot, and what its winner would be built from.
        eager: slots to activate although nobody has asked for them yet.
        held: slots that keep what they have although precedence would now choose another.

    A slot that nobody can fill any more keeps its instance: taking it away would fail calls and repair nothing.
    """
    steps: list[Change] = []
    for slot in sorted({*live, *eager}):
        resolution, build = wanted[slot]
        now = live.get(slot)
        if build is None or (slot in held and now is not None):
            if now is not None:
                steps.append(Change(slot, "keep", now.candidate.provider, resolution.summary))
        elif now is None:
            steps.append(Change(slot, "activate", build.candidate.provider, resolution.summary))
        elif now.identity != build.identity:
            steps.append(Change(slot, "swap", build.candidate.provider, _difference(now, build, resolution)))
    return tuple(steps)


def _difference(now: Build, then: Build, resolution: Resolution) -> str:
    if now.candidate.provider != then.candidate.provider:
        return resolution.summary
    if now.settings != then.settings:
        return f"settings of {then.candidate.provider} changed"
    return f"{then.candidate.provider} is offered by another factory or version"
