"""A run may begin from a checkpoint of another run, whose spec differs in what the training state is not made of."""

from pathlib import Path

import pytest

from alignment_core import JobSpec, align
from alignment_core.checkpoints import folder_of
from alignment_core.errors import CheckpointError
from alignment_core.events import Event, RunStarted, StepCompleted
from alignment_core.spec.continuation import broken_by
from tests.alignment_core.test_alignment import of_type, same_weights, stop_after
from tests.alignment_core.tiny import tiny_spec

pytestmark = pytest.mark.usefixtures("shapes_unchecked")


def changed(spec: JobSpec, **parts: object) -> JobSpec:
    """The spec with fields of its parts replaced."""
    values = spec.model_dump(mode="json")
    for name, part in parts.items():
        values[name] = {**values[name], **part} if isinstance(part, dict) else part
    return JobSpec.model_validate(values)


def steps_of(events: list[Event]) -> list[int]:
    return [event.step for event in of_type(events, StepCompleted)]


def test_a_run_from_a_checkpoint_of_the_same_spec_ends_where_the_undisturbed_one_does(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = tiny_spec(tiny_model, tiny_pairs)
    whole, first, second = (tmp_path / name for name in ("whole", "first", "second"))
    list(align(spec, whole, cache_dir=cache_dir))
    stop_after(spec, first, cache_dir, 4)
    events = list(align(spec, second, cache_dir=cache_dir, resume_from=folder_of(first / "checkpoints", 4)))
    assert steps_of(events) == [5, 6]
    assert same_weights(folder_of(whole / "checkpoints", 6), folder_of(second / "checkpoints", 6))


def test_a_run_goes_on_with_another_learning_rate_and_batch_and_more_steps_and_then_from_its_own_checkpoints(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec, first, second = tiny_spec(tiny_model, tiny_pairs), tmp_path / "first", tmp_path / "second"
    stop_after(spec, first, cache_dir, 3)
    begin = folder_of(first / "checkpoints", 3)
    training = {"learning_rate": 1e-5, "batch_size": 1, "gradient_accumulation_steps": 1, "steps": 7}
    gentler = changed(spec, training=training, method={"beta": 100.0})
    with_start = list(align(gentler, second, cache_dir=cache_dir, resume_from=begin))
    (started,) = of_type(with_start, RunStarted)
    assert (started.resumed_from_step, started.learning_rate, started.examples_per_step) == (3, 1e-5, 1)
    assert steps_of(with_start) == [4, 5, 6, 7]
    again = list(align(gentler, second, cache_dir=cache_dir, resume_from=begin))
    assert steps_of(again) == [], "its own last checkpoint counts now"


@pytest.mark.parametrize("changes", [{}, {"reference": {"type": "ema"}, "timesteps": {"type": "timestep_aware"}}])
def test_a_fork_with_more_steps_has_the_bits_of_one_long_run(
    changes: dict[str, object], tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = changed(tiny_spec(tiny_model, tiny_pairs, **changes), training={"steps": 2}).resolved()
    long = changed(spec, training={"steps": 4})
    list(align(long, tmp_path / "long", cache_dir=cache_dir))
    list(align(spec, tmp_path / "short", cache_dir=cache_dir))
    end_of_short = folder_of(tmp_path / "short" / "checkpoints", 2)
    list(align(long, tmp_path / "fork", cache_dir=cache_dir, resume_from=end_of_short))
    assert same_weights(
        folder_of(tmp_path / "long" / "checkpoints", 4), folder_of(tmp_path / "fork" / "checkpoints", 4)
    )


def test_what_the_state_is_made_of_must_stay(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = tiny_spec(tiny_model, tiny_pairs)
    assert broken_by(spec, changed(spec, training={"learning_rate": 1e-4}, evaluation={"max_prompts": 3})) == []
    assert broken_by(spec, changed(spec, seed=8)) == ["/seed"]
    assert broken_by(spec, changed(spec, adapter={"rank": 3})) == ["/adapter"]
    assert broken_by(spec, changed(spec, training={"validation_fraction": 0.4})) == ["/training/validation_fraction"]
    stop_after(spec, tmp_path / "first", cache_dir, 3)
    begin = folder_of(tmp_path / "first" / "checkpoints", 3)
    with pytest.raises(CheckpointError, match="trained with another /adapter") as caught:
        list(align(changed(spec, adapter={"rank": 3}), tmp_path / "second", cache_dir=cache_dir, resume_from=begin))
    assert caught.value.code == "checkpoint_of_another_kind"
    with pytest.raises(CheckpointError, match="has the 3 steps"):
        list(align(changed(spec, training={"steps": 3}), tmp_path / "third", cache_dir=cache_dir, resume_from=begin))
