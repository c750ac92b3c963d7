"""The state of a run: every transition, every forbidden one, and what holds after any sequence of them."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment_core.errors import CheckpointError
from alignment_core.training.run_state import (
    ALLOWED,
    STAGES,
    Best,
    Ending,
    InvalidTransition,
    RunState,
    Stage,
    Verb,
    choose_result,
    reason_of,
    selected_by,
)
from alignment_core.training.watch_record import load_watch, save_watch

STOP = Ending(guard="errors_rising", step=4, message="both rose", action="stop")
BACK = Ending(guard="errors_rising", step=4, message="both rose", action="rollback")
UNDERWAY = RunState(total_steps=6, step=4, saved_step=2, probed_step=2, best=Best(step=2, value=0.5))
STATES: dict[Stage, RunState] = {
    "training": UNDERWAY,
    "ended": UNDERWAY.end(STOP),
    "decided": UNDERWAY.end(STOP).decide(2),
}
DO: dict[Verb, Callable[[RunState], RunState]] = {
    "complete_step": lambda state: state.complete_step(state.step + 1),
    "save": RunState.save,
    "probe": lambda state: state.probe(0.7),
    "end": lambda state: state.end(BACK),
    "decide": lambda state: state.decide(state.step),
    "lose_best": RunState.lose_best,
    "lose_result": RunState.lose_result,
}
CHANGES: dict[tuple[Verb, Stage], dict[str, object]] = {
    ("complete_step", "training"): {"step": 5},
    ("save", "training"): {"saved_step": 4},
    ("save", "ended"): {"saved_step": 4},
    ("save", "decided"): {"saved_step": 4},
    ("probe", "training"): {"probed_step": 4, "best": Best(step=4, value=0.7)},
    ("probe", "ended"): {"probed_step": 4, "best": Best(step=4, value=0.7)},
    ("end", "training"): {"ending": BACK},
    ("end", "ended"): {},
    ("decide", "ended"): {"result_step": 4},
    ("lose_best", "training"): {"best": None},
    ("lose_best", "ended"): {"best": None},
    ("lose_best", "decided"): {"best": None},
    ("lose_result", "decided"): {"result_step": None},
}
EVERY = [(verb, stage) for verb in DO for stage in STAGES]


def test_the_table_has_these_transitions_and_no_others() -> None:
    assert {(verb, stage) for verb, stages in ALLOWED.items() for stage in stages} == set(CHANGES)
    assert {stage: state.stage for stage, state in STATES.items()} == {stage: stage for stage in STAGES}


@pytest.mark.parametrize(("verb", "stage"), list(CHANGES))
def test_a_transition_changes_what_it_says_and_nothing_else(verb: Verb, stage: Stage) -> None:
    before = STATES[stage]
    assert DO[verb](before) == before.model_copy(update=CHANGES[verb, stage])
    assert before == STATES[stage], "a state is a value"


@pytest.mark.parametrize(("verb", "stage"), [one for one in EVERY if one not in CHANGES])
def test_what_the_stage_forbids_is_refused(verb: Verb, stage: Stage) -> None:
    with pytest.raises(InvalidTransition, match=f"a run that is {stage} cannot {verb}"):
        DO[verb](STATES[stage])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: UNDERWAY.complete_step(6),
        lambda: UNDERWAY.probe(0.7).probe(0.8),
        lambda: UNDERWAY.end(STOP.model_copy(update={"action": "warn"})),
        lambda: STATES["ended"].decide(5),
        lambda: UNDERWAY.lose_best().lose_best(),
    ],
    ids=[
        "a step is left out",
        "a step is probed twice",
        "a warning ends nothing",
        "a result after the end",
        "lost twice",
    ],
)
def test_a_transition_that_skips_something_is_refused(wrong: Callable[[], RunState]) -> None:
    with pytest.raises(InvalidTransition):
        wrong()


@pytest.mark.parametrize(("value", "best"), [(0.7, 4), (0.5, 2), (0.3, 2), (None, 2)])
def test_the_best_is_the_first_with_the_highest_value_among_candidates(value: float | None, best: int) -> None:
    after = UNDERWAY.probe(value)
    assert after.best is not None
    assert (after.best.step, after.probed_step) == (best, 4)


@pytest.mark.parametrize(
    ("state", "every", "awaits"),
    [
        (UNDERWAY, 2, True),
        (UNDERWAY, 3, False),
        (UNDERWAY, None, False),
        (UNDERWAY.probe(None), 2, False),
        (UNDERWAY.end(STOP), 3, True),
        (UNDERWAY.end(BACK), 2, False),
        (UNDERWAY.end(STOP).decide(4), 3, False),
        (UNDERWAY.complete_step(5).complete_step(6), 4, True),
        (RunState(total_steps=6), 2, False),
    ],
)
def test_a_step_is_probed_when_it_is_due_or_the_last_unless_the_run_goes_back(
    state: RunState, every: int | None, awaits: bool
) -> None:
    assert state.awaits_probe(every) == awaits


@pytest.mark.parametrize(
    ("state", "preferred", "chosen", "why"),
    [
        (UNDERWAY.end(STOP), "best", 2, "held_out_reward"),
        (UNDERWAY.end(STOP), "last", 4, "last_step"),
        (UNDERWAY.end(BACK), "last", 2, "held_out_reward"),
        (UNDERWAY.lose_best().end(BACK), "best", 3, "rollback"),
        # the step that diverged was never taken, so the last one is from before the violation
        (UNDERWAY.lose_best().end(BACK.model_copy(update={"step": 5})), "best", 4, "last_step"),
    ],
)
def test_the_result_is_the_best_the_last_or_the_newest_from_before_the_violation(
    state: RunState, preferred: Literal["best", "last"], chosen: int, why: str
) -> None:
    assert choose_result(state, [1, 3, 4], preferred) == chosen
    decided = state.decide(chosen)
    assert selected_by(decided) == why
    assert reason_of(decided).startswith("errors_rising ended training at step ")
    assert reason_of(decided).partition("; ")[2].startswith(f"the checkpoint of step {chosen} ")


def test_a_rollback_with_nothing_to_go_back_to_keeps_the_last_step() -> None:
    assert choose_result(UNDERWAY.lose_best().end(BACK), [], "best") == 4


EVENTS = st.lists(
    st.tuples(st.sampled_from(list(DO)), st.sampled_from([None, 0.1, 0.5, 0.9]), st.sampled_from([STOP, BACK])),
    max_size=30,
)


@given(EVENTS)
def test_whatever_happens_a_run_ends_once_and_never_forgets_how(
    events: list[tuple[Verb, float | None, Ending]],
) -> None:
    state, stages = RunState(total_steps=4), ["training"]
    for verb, value, ending in events:
        doing = {**DO, "probe": lambda one, value=value: one.probe(value), "end": lambda one, e=ending: one.end(e)}
        try:
            after = doing[verb](state)
        except InvalidTransition:
            continue
        assert max(after.saved_step, after.probed_step, after.result_step or 0) <= after.step <= after.total_steps
        assert (after.step, after.saved_step, after.probed_step) >= (state.step, state.saved_step, state.probed_step)
        assert state.ending in (None, after.ending)
        assert after.best is None or after.best.step <= after.probed_step
        assert after.kept_steps <= set(range(after.step + 1))
        stages.append(after.stage)
        state = after
    order = [STAGES.index(stage) for stage in stages]
    assert all(later >= earlier or (earlier, later) == (2, 1) for earlier, later in itertools.pairwise(order))


# --- what is kept --------------------------------------------------------------------------------------------------

OLD = """{
  "recent": [
    {
      "loss": 0.6931471824645996,
      "implicit_accuracy": 0.5
    }
  ],
  "probes": [
    {
      "step": 2,
      "num_prompts": 2,
      "rewards": {
        "brightness": {
          "mean": 0.5,
          "gain": 0.1,
          "low": -0.1,
          "high": 0.30000000000000004,
          "spread": 0.2
        }
      },
      "prompt_following": null,
      "diversity": 0.1,
      "base_diversity": 0.1
    }
  ],
  "fired": [
    "errors_rising"
  ],
  "unsaid": [],
  "ending": {
    "guard": "errors_rising",
    "step": 4,
    "message": "both rose",
    "action": "rollback"
  },
  "best": {
    "step": 2,
    "value": 0.5
  },
  "result_step": 2
}"""


def test_what_a_stored_checkpoint_keeps_is_read_and_written_again_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "watch.json"
    path.write_text(OLD)
    record = load_watch(path)
    state = record.state_at(4, total_steps=6)
    assert state == UNDERWAY.save().end(BACK).decide(2)
    save_watch(path, record.seen, state)
    assert path.read_text() == OLD


@pytest.mark.parametrize("text", ["{", '{"best": 3}', '{"more": 1}', None])
def test_a_record_that_is_missing_or_malformed_is_a_checkpoint_error(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "watch.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"watch\.json"):
        load_watch(tmp_path / "watch.json")
