"""The table of states."""

from __future__ import annotations

from itertools import product

import pytest

from oneiric.core.states import TRANSITIONS, Activity, ImpossibleStep, State, Step, advance, shown

EVERY = list(product(State, Step))


@pytest.mark.parametrize(("state", "step"), EVERY)
def test_step_is_in_the_table_or_impossible(state: State, step: Step) -> None:
    try:
        following = advance(state, step)
    except ImpossibleStep:
        assert (state, step) not in TRANSITIONS
    else:
        assert TRANSITIONS[state, step] is following


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_stopped(state: State) -> None:
    assert advance(state, Step.STOP) is State.STOPPED


@pytest.mark.parametrize("step", [step for step in Step if step is not Step.STOP])
def test_nothing_leads_out_of_stopped(step: Step) -> None:
    with pytest.raises(ImpossibleStep, match="impossible while stopped"):
        advance(State.STOPPED, step)


def test_failed_swap_returns_to_ready_and_failed_activation_to_failed() -> None:
    assert (advance(State.SWAPPING, Step.GIVE_UP), advance(State.ACTIVATING, Step.GIVE_UP)) == (
        State.READY,
        State.FAILED,
    )


def test_states_that_are_reached_are_all_but_what_an_activity_shows() -> None:
    assert set(State) - {State.PAUSED, State.DRAINING} == {*TRANSITIONS.values(), State.INACTIVE}


@pytest.mark.parametrize("state", State)
def test_open_slot_shows_its_state(state: State) -> None:
    assert shown(state, Activity.OPEN) is state


@pytest.mark.parametrize("activity", [Activity.PAUSED, Activity.DRAINING])
@pytest.mark.parametrize("state", [State.INACTIVE, State.READY])
def test_activity_covers_a_quiet_state(state: State, activity: Activity) -> None:
    assert shown(state, activity) == activity.value


@pytest.mark.parametrize("activity", [Activity.PAUSED, Activity.DRAINING])
@pytest.mark.parametrize("state", [State.STOPPED, State.FAILED, State.SWAPPING, State.ACTIVATING])
def test_activity_does_not_hide_a_busy_or_broken_state(state: State, activity: Activity) -> None:
    assert shown(state, activity) is state
