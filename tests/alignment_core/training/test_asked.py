"""A checkpoint, a picture and a probe on demand: done after the next step, once, and the run has the bits that it has without."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from alignment_core import JobSpec, align
from alignment_core.checkpoints import folder_of
from alignment_core.events import ActionAnswered, CheckpointSaved, Event, ProbeCompleted, SamplesDrawn, StepCompleted
from alignment_core.training.asked import ASKED
from tests.alignment_core.test_alignment import of_type, same_weights
from tests.alignment_core.tiny import EVALUATION, UNJUDGED, tiny_spec

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

ACTIONS = ("checkpoint", "probe", "sample")


def spec_of(model: Path, pairs: Path, evaluation: dict[str, object] = EVALUATION) -> JobSpec:
    return tiny_spec(model, pairs, evaluation=evaluation, checkpoints={"every": 100, "keep_last": 1})


def ask(workdir: Path, request_id: str, action: str) -> None:
    (workdir / ASKED).mkdir(parents=True, exist_ok=True)
    (workdir / ASKED / f"{request_id}.json").write_text(json.dumps({"id": request_id, "action": action}))


def asked_at(step: int, spec: JobSpec, workdir: Path, cache_dir: Path, *actions: str) -> Iterator[Event]:
    """The run, of which all is asked once `step` is done."""
    with closing(align(spec, workdir, cache_dir=cache_dir)) as events:
        for event in events:
            if isinstance(event, StepCompleted) and event.step == step:
                for number, action in enumerate(actions):
                    ask(workdir, f"act_{number}", action)
            yield event


def test_what_is_asked_is_done_once_after_the_next_step_and_changes_no_bit(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = spec_of(tiny_model, tiny_pairs)
    list(align(spec, tmp_path / "plain", cache_dir=cache_dir))
    events = list(asked_at(2, spec, tmp_path / "asked", cache_dir, *ACTIONS))
    answers = of_type(events, ActionAnswered)
    assert [(one.id, one.action, one.step, one.refused) for one in answers] == [
        (f"act_{number}", action, 2, None) for number, action in enumerate(ACTIONS)
    ]
    assert "brightness_gain" in answers[1].metrics
    assert of_type(events, ProbeCompleted) == [], "no curve has it"
    assert [one.step for one in of_type(events, CheckpointSaved)] == [2, 6]
    assert folder_of(tmp_path / "asked" / "checkpoints", 2).is_dir(), "it is kept, though keep_last is 1"
    assert (tmp_path / "asked" / of_type(events, SamplesDrawn)[0].path).is_file()
    plain, asked = (folder_of(tmp_path / name / "checkpoints", 6) for name in ("plain", "asked"))
    assert same_weights(plain, asked)
    for name in ("history.json", "watch.json"):
        assert (plain / "training_state" / name).read_text() == (asked / "training_state" / name).read_text()


def test_what_cannot_be_done_is_refused_and_the_run_goes_on(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    ask(tmp_path, "act_a", "probe")
    (tmp_path / ASKED / "act_b.json").write_text("{half")
    events = list(align(spec_of(tiny_model, tiny_pairs, UNJUDGED), tmp_path, cache_dir=cache_dir))
    (answer,) = of_type(events, ActionAnswered)
    assert (answer.step, answer.refused) == (1, "the run has no evaluation rewards to judge by")
    assert of_type(events, StepCompleted)[-1].step == 6


@pytest.mark.parametrize("action", ["probe", "sample"])
def test_pixels_that_are_no_numbers_fail_the_request_and_not_the_run(
    action: str, tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alignment_core.errors import DivergenceError
    from alignment_core.training import asked

    def diverges(*_: object, **__: object) -> Iterator[Event]:
        raise DivergenceError("diverged", "no numbers")
        yield

    monkeypatch.setattr(asked, "draw_and_judge", diverges)
    monkeypatch.setattr("alignment_core.evaluation.probe.draw_and_judge", diverges)
    ask(tmp_path, "act_a", action)
    spec = spec_of(tiny_model, tiny_pairs)
    with closing(align(spec, tmp_path, cache_dir=cache_dir)) as events:
        found = next(event for event in events if isinstance(event, ActionAnswered))
        assert found.refused == "no numbers"
        assert next(event for event in events if isinstance(event, StepCompleted)).step == 2
