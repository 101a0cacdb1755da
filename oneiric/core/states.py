"""The life of a slot, as a table.

``State`` says what the engine is doing with the slot's instance; ``Activity`` says whether callers may have leases. An
operator sees both as one word (``shown``).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class State(StrEnum):
    """What the engine is doing with a slot."""

    INACTIVE = "inactive"
    ACTIVATING = "activating"
    READY = "ready"
    SWAPPING = "swapping"
    PAUSED = "paused"
    DRAINING = "draining"
    FAILED = "failed"
    STOPPED = "stopped"


class Activity(StrEnum):
    """Whether callers may take a lease: an operator's decision, kept across restarts."""

    OPEN = "open"
    PAUSED = "paused"
    DRAINING = "draining"


class Step(StrEnum):
    """What can happen to a slot."""

    BUILD = "build"  # an instance is being built and probed
    COMMIT = "commit"  # callers now use the new instance
    GIVE_UP = "give-up"  # the new instance did not take over
    LOSE = "lose"  # ... and the old one, stopped before it, could not be brought back
    REMOVE = "remove"  # the instance was drained and cleaned up, nobody follows
    STOP = "stop"  # the runtime closes


TRANSITIONS: Final[Mapping[tuple[State, Step], State]] = MappingProxyType(
    {
        (State.INACTIVE, Step.BUILD): State.ACTIVATING,
        (State.FAILED, Step.BUILD): State.ACTIVATING,
        (State.READY, Step.BUILD): State.SWAPPING,
        (State.ACTIVATING, Step.COMMIT): State.READY,
        (State.SWAPPING, Step.COMMIT): State.READY,
        (State.ACTIVATING, Step.GIVE_UP): State.FAILED,
        (State.SWAPPING, Step.GIVE_UP): State.READY,
        (State.SWAPPING, Step.LOSE): State.FAILED,
        (State.READY, Step.REMOVE): State.INACTIVE,
        (State.FAILED, Step.REMOVE): State.INACTIVE,
        (State.INACTIVE, Step.REMOVE): State.INACTIVE,
        **{(state, Step.STOP): State.STOPPED for state in State},
    }
)


class ImpossibleStep(Exception):  # noqa: N818 - a bug in the engine, not an error an operator can make
    """The engine asked for a step that its state does not allow."""


def advance(state: State, step: Step) -> State:
    """Return the state that follows *step*; raises ImpossibleStep where the table has no entry."""
    try:
        return TRANSITIONS[state, step]
    except KeyError:
        raise ImpossibleStep(f"{step} is impossible while {state}") from None


def shown(state: State, activity: Activity) -> State:
    """Return the one word an operator sees: an activity other than open covers a slot that is not stopped or failed."""
    if state in (State.STOPPED, State.FAILED, State.SWAPPING, State.ACTIVATING) or activity is Activity.OPEN:
        return state
    return State.PAUSED if activity is Activity.PAUSED else State.DRAINING
