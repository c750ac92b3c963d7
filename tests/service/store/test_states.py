import pytest

from service.store.states import HELD, STATES, TERMINAL, TRANSITIONS, InvalidTransition, after

# Design, section 5, and nothing besides; `failed` is reached from every state that is not an end, and left by resuming.
ARROWS = {
    ("validating", "cancelled"),
    ("queued", "starting"),
    ("queued", "paused"),
    ("queued", "cancelled"),
    ("starting", "running"),
    ("running", "finalizing"),
    ("pausing", "paused"),
    ("pausing", "cancelling"),
    ("paused", "queued"),
    ("failed", "queued"),
    *((state, "paused") for state in ("starting", "running", "finalizing")),
    ("paused", "cancelled"),
    ("cancelling", "cancelled"),
    *((state, "succeeded") for state in HELD),
    *((state, "failed") for state in STATES if state not in TERMINAL),
    *((state, "queued") for state in ("starting", "running", "finalizing")),
    *((state, "cancelling") for state in ("starting", "running", "finalizing")),
    *((state, "pausing") for state in ("starting", "running")),
}


def test_the_table_has_the_arrows_of_the_design_and_no_others() -> None:
    drawn = {(state, target) for verb in TRANSITIONS.values() for state, target in verb.items() if state != target}
    assert drawn == ARROWS


def test_of_the_ends_only_a_failure_is_left_and_only_by_resuming() -> None:
    left = [(verb, state) for verb, arrows in TRANSITIONS.items() for state in arrows if state in TERMINAL]
    assert left == [("cancel", "cancelled"), ("resume", "failed")], "cancelling what is cancelled changes nothing"


def test_a_forbidden_transition_names_state_and_verb() -> None:
    with pytest.raises(InvalidTransition, match="a job that is succeeded cannot pause") as caught:
        after("succeeded", "pause")
    assert (caught.value.state, caught.value.verb) == ("succeeded", "pause")
