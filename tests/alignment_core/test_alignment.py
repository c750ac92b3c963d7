"""Whole runs of a tiny model: what is yielded, what is saved, and that stopping costs nothing."""

from contextlib import closing
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from alignment_core import AlignmentError, JobSpec, align
from alignment_core.checkpoints import STATE, complete, folder_of, read_manifest, verify
from alignment_core.errors import CheckpointError, DataError, DivergenceError, ModelError
from alignment_core.events import (
    CheckpointSaved,
    DatasetChecked,
    EvaluationCompleted,
    Event,
    ModelLoaded,
    PhaseChanged,
    PhaseProgressed,
    RunCompleted,
    RunStarted,
    StepCompleted,
    ValidationCompleted,
    event_from_json,
    event_to_json,
)
from alignment_core.spec.places import Sources
from demo.assets import ASSETS
from tests.alignment_core.tiny import UNJUDGED, save_pairs, tiny_spec

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

E = TypeVar("E")
FULL = {"adapter": {"type": "full"}}


def of_type(events: list[Event], kind: type[E]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def stop_after(spec: JobSpec, workdir: Path, cache_dir: Path, step: int) -> None:
    """Run, and leave the loop when `step` is completed."""
    with closing(align(spec, workdir, cache_dir=cache_dir)) as events:
        for event in events:
            if isinstance(event, StepCompleted) and event.step == step:
                return
    raise AssertionError("the run ended before the step")


def same_weights(one: Path, other: Path) -> bool:
    """All safetensors files of two checkpoint folders hold the same bits."""
    files = sorted(path.relative_to(one) for path in one.rglob("*.safetensors"))
    assert files == sorted(path.relative_to(other) for path in other.rglob("*.safetensors"))
    pairs = [(load_file(one / file), load_file(other / file)) for file in files]
    return all(a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in pairs)


@pytest.fixture(scope="module")
def finished(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Event]]:
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, list(align(tiny_spec(tiny_model, tiny_pairs), workdir, cache_dir=cache_dir))


def test_the_first_event_says_what_is_really_run(finished: tuple[Path, list[Event]]) -> None:
    first = finished[1][0]
    assert isinstance(first, RunStarted)
    assert first.learning_rate == 1e-3
    assert first.examples_per_step == 4
    assert first.resumed_from_step is None
    assert first.spec["adapter"]["alpha"] == 2.0
    assert any("4 pairs per optimiser step" in warning for warning in first.warnings)


def test_a_run_yields_every_step_and_ends_with_the_proof(finished: tuple[Path, list[Event]]) -> None:
    workdir, events = finished
    assert [event.step for event in of_type(events, StepCompleted)] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in of_type(events, CheckpointSaved)] == [2, 4, 6]
    assert [event.is_final for event in of_type(events, CheckpointSaved)] == [False, False, True]
    (report,) = of_type(events, EvaluationCompleted)
    assert (workdir / report.path).is_file()
    assert isinstance(events[-1], RunCompleted)


def test_a_run_says_when_training_stands_still_to_save(finished: tuple[Path, list[Event]]) -> None:
    events = [event for event in finished[1] if isinstance(event, PhaseChanged | StepCompleted | CheckpointSaved)]
    told = [event.phase if isinstance(event, PhaseChanged) else event.type for event in events]
    step, saved = "step_completed", "checkpoint_saved"
    a_save = [step, step, "saving", saved]
    begun = told.index("training")
    assert told[begun : begun + 15] == ["training", *a_save, "training", *a_save, "training", *a_save]
    assert told[begun + 15 :] == ["sampling", "evaluating"]


def test_events_survive_the_trip_through_json(finished: tuple[Path, list[Event]]) -> None:
    assert [event_from_json(event_to_json(event)) for event in finished[1]] == finished[1]


def test_policy_equals_reference_before_the_first_step(finished: tuple[Path, list[Event]]) -> None:
    first = of_type(finished[1], StepCompleted)[0].metrics
    assert first["loss"] == pytest.approx(0.6931472, abs=1e-6)
    assert first["implicit_accuracy"] == 0.5
    assert first["margin"] == 0.0
    assert first["grad_norm"] > 0


def test_checkpoints_are_whole_and_hold_no_pickle(finished: tuple[Path, list[Event]]) -> None:
    for folder in complete(finished[0] / "checkpoints"):
        manifest = verify(folder)
        assert {Path(file.path).suffix for file in manifest.files} == {".safetensors", ".json"}


def test_lora_loads_in_plain_diffusers_and_draws_what_the_run_drew(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    # alpha differs from the rank: a loader that ignores the file's header would scale the update wrongly
    spec = tiny_spec(tiny_model, tiny_pairs, adapter={"type": "lora", "rank": 2, "alpha": 6.0}, evaluation=UNJUDGED)
    list(align(spec, tmp_path, cache_dir=cache_dir))
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    arguments = {"prompt": "a red circle", "num_inference_steps": 2, "guidance_scale": 1.0, "output_type": "pt"}
    base = pipeline(**arguments, generator=torch.Generator().manual_seed(0)).images
    pipeline.load_lora_weights(folder_of(tmp_path / "checkpoints", 6))
    tuned = pipeline(**arguments, generator=torch.Generator().manual_seed(0)).images
    assert not torch.equal(base, tuned)
    config = pipeline.unet.peft_config["default_0"]
    assert (config.r, config.lora_alpha) == (2, 6.0)


def test_a_full_fine_tune_is_a_complete_diffusers_folder(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    list(align(tiny_spec(tiny_model, tiny_pairs, **FULL, evaluation=UNJUDGED), tmp_path, cache_dir=cache_dir))
    folder = folder_of(tmp_path / "checkpoints", 6) / "pipeline"
    tuned = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    base = StableDiffusionPipeline.from_pretrained(tiny_model, use_safetensors=True)
    assert not torch.equal(tuned.unet.conv_in.weight, base.unet.conv_in.weight)
    assert torch.equal(tuned.vae.decoder.conv_in.weight, base.vae.decoder.conv_in.weight)


@pytest.mark.parametrize("adapter", [{"type": "lora", "rank": 2}, {"type": "full"}], ids=["lora", "full"])
def test_a_stopped_run_resumes_bit_for_bit(
    adapter: dict[str, object], tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = tiny_spec(tiny_model, tiny_pairs, adapter=adapter, evaluation=UNJUDGED)
    list(align(spec, tmp_path / "whole", cache_dir=cache_dir))
    whole = folder_of(tmp_path / "whole" / "checkpoints", 6)
    for stopped_at in (3, 4):  # between two checkpoints, and at one
        assert same_weights(whole, resumed_after(spec, tmp_path / f"stopped at {stopped_at}", cache_dir, stopped_at))


def resumed_after(spec: JobSpec, workdir: Path, cache_dir: Path, stopped_at: int) -> Path:
    """The last checkpoint of a run that was stopped after a step and went on."""
    stop_after(spec, workdir, cache_dir, stopped_at)
    resumed = list(align(spec, workdir, cache_dir=cache_dir))
    first = resumed[0]
    assert isinstance(first, RunStarted)
    assert first.resumed_from_step == stopped_at
    assert [event.step for event in of_type(resumed, StepCompleted)] == list(range(stopped_at + 1, 7))
    return folder_of(workdir / "checkpoints", 6)


def test_a_run_whose_newest_checkpoint_was_altered_goes_on_from_the_one_before(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = tiny_spec(tiny_model, tiny_pairs)
    stop_after(spec, tmp_path, cache_dir, 4)
    state = folder_of(tmp_path / "checkpoints", 4) / STATE / "optimizer.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    first = next(align(spec, tmp_path, cache_dir=cache_dir))
    assert isinstance(first, RunStarted)
    assert first.resumed_from_step == 2


def test_a_finished_run_is_only_evaluated_again(
    finished: tuple[Path, list[Event]], tiny_model: Path, tiny_pairs: Path, cache_dir: Path
) -> None:
    again = list(align(tiny_spec(tiny_model, tiny_pairs), finished[0], cache_dir=cache_dir))
    assert not of_type(again, StepCompleted)
    scores = [of_type(events, EvaluationCompleted)[0].report["images"] for events in (finished[1], again)]
    assert scores[0] == scores[1]


def test_a_work_folder_of_another_spec_is_refused(
    finished: tuple[Path, list[Event]], tiny_model: Path, tiny_pairs: Path
) -> None:
    with pytest.raises(CheckpointError, match="checkpoints of another spec"):
        next(align(tiny_spec(tiny_model, tiny_pairs, seed=8), finished[0]))


def test_a_second_run_on_the_same_data_encodes_nothing(
    finished: tuple[Path, list[Event]], tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    events = list(align(tiny_spec(tiny_model, tiny_pairs, seed=7), tmp_path, cache_dir=cache_dir))
    caching = [event for event in of_type(events, PhaseProgressed) if event.phase == "caching"]
    assert caching
    assert all(event.cached == event.done for event in caching)


def test_accumulation_cuts_the_same_step_up_differently(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    def losses(batch_size: int, accumulation: int) -> list[float]:
        training = {
            "steps": 3,
            "batch_size": batch_size,
            "gradient_accumulation_steps": accumulation,
            "learning_rate": 1e-3,
        }
        spec = tiny_spec(tiny_model, tiny_pairs, training=training, evaluation=UNJUDGED)
        events = list(align(spec, tmp_path / f"{batch_size}", cache_dir=cache_dir))
        return [event.metrics["loss"] for event in of_type(events, StepCompleted)]

    whole = losses(4, 1)
    assert losses(2, 2) == pytest.approx(whole, rel=1e-4)
    assert losses(1, 4) == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("v_rescale", ["none", "abar"])
def test_v_prediction_starts_at_ln_2_and_trains(
    v_rescale: str, tiny_v_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    method = {
        "type": "diffusion_dpo",
        "dataset": {"type": "local", "path": str(tiny_pairs)},
        "beta": 500.0,
        "v_rescale": v_rescale,
    }
    events = list(align(tiny_spec(tiny_v_model, tiny_pairs, method=method), tmp_path, cache_dir=cache_dir))
    (loaded,) = of_type(events, ModelLoaded)
    assert loaded.prediction_type == "v_prediction"
    steps = of_type(events, StepCompleted)
    assert steps[0].metrics["loss"] == pytest.approx(0.6931472, abs=1e-6)
    assert steps[-1].metrics["margin"] != 0.0


@pytest.mark.parametrize("loss", ["hinge", "ipo", "cdpo", "robust", "dmpo"])
def test_every_loss_variant_trains(
    loss: str, tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    start = {"hinge": 1.0, "ipo": 0.25, "cdpo": 0.6931472, "robust": 0.6931472, "dmpo": 1.614463080}
    method = {
        "type": "diffusion_dpo",
        "dataset": {"type": "local", "path": str(tiny_pairs)},
        "beta": 500.0,
        "loss": loss,
    }
    spec = tiny_spec(tiny_model, tiny_pairs, method=method, evaluation=UNJUDGED)
    steps = of_type(list(align(spec, tmp_path, cache_dir=cache_dir)), StepCompleted)
    assert steps[0].metrics["loss"] == pytest.approx(start[loss], abs=1e-5)
    assert steps[-1].metrics["margin"] != 0.0


def test_bfloat16_still_starts_with_policy_equal_to_reference(
    tiny_model: Path, tiny_pairs: Path, tmp_path: Path
) -> None:
    training = {
        "steps": 2,
        "batch_size": 2,
        "gradient_accumulation_steps": 1,
        "precision": "bf16",
        "learning_rate": 1e-3,
    }
    for adapter in ({"type": "lora", "rank": 2}, {"type": "full"}):
        spec = tiny_spec(tiny_model, tiny_pairs, training=training, adapter=adapter, evaluation=UNJUDGED)
        steps = of_type(list(align(spec, tmp_path / str(adapter["type"]), cache_dir=tmp_path / "cache")), StepCompleted)
        assert steps[0].metrics["margin"] == 0.0
        assert steps[1].metrics["margin"] != 0.0


def test_gradient_checkpointing_changes_no_number(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    def margins(checkpointing: bool, workdir: Path) -> list[float]:
        training = {
            "steps": 3,
            "batch_size": 2,
            "gradient_accumulation_steps": 1,
            "gradient_checkpointing": checkpointing,
            "learning_rate": 1e-3,
        }
        spec = tiny_spec(tiny_model, tiny_pairs, training=training, evaluation=UNJUDGED)
        events = list(align(spec, workdir, cache_dir=cache_dir))
        return [event.metrics["margin"] for event in of_type(events, StepCompleted)]

    assert margins(True, tmp_path / "on") == pytest.approx(margins(False, tmp_path / "off"), rel=1e-5)


def test_random_transforms_encode_on_the_fly_and_resume(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    method = {
        "type": "diffusion_dpo",
        "dataset": {"type": "local", "path": str(tiny_pairs)},
        "beta": 500.0,
        "caption_dropout": 0.5,
        "transform": {"horizontal_flip": True},
    }
    spec = tiny_spec(tiny_model, tiny_pairs, method=method, evaluation=UNJUDGED)
    list(align(spec, tmp_path / "whole", cache_dir=cache_dir))
    stopped = resumed_after(spec, tmp_path / "stopped", cache_dir, 3)
    assert same_weights(folder_of(tmp_path / "whole" / "checkpoints", 6), stopped)


def test_validation_measures_the_same_draws_every_time(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    training = {
        "steps": 4,
        "batch_size": 2,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-8,
        "validation_fraction": 0.3,
        "validate_every": 2,
    }
    spec = tiny_spec(tiny_model, tiny_pairs, training=training, evaluation=UNJUDGED)
    events = list(align(spec, tmp_path, cache_dir=cache_dir))
    first, second = of_type(events, ValidationCompleted)
    assert (first.step, second.step) == (2, 4)
    assert first.metrics["chosen_error"] == pytest.approx(second.metrics["chosen_error"], rel=1e-5)
    (checked,) = of_type(events, DatasetChecked)
    assert checked.num_validation_examples > 0
    assert checked.num_training_examples + checked.num_validation_examples == 12


def test_a_diverging_run_keeps_its_last_good_checkpoint(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    training = {
        "steps": 50,
        "batch_size": 2,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1.0,
        "max_grad_norm": 1e30,
        "weight_decay": 1e36,
    }
    spec = tiny_spec(tiny_model, tiny_pairs, training=training, adapter={"type": "full"}, checkpoints={"every": 100})
    events: list[Event] = []
    with pytest.raises(DivergenceError, match=r"step \d+: the (loss|gradient norm) is (nan|inf)"):
        events.extend(align(spec, tmp_path, cache_dir=cache_dir))
    (folder,) = complete(tmp_path / "checkpoints")
    verify(folder)
    assert all(tensor.isfinite().all() for path in folder.rglob("*.safetensors") for tensor in load_file(path).values())


def test_a_time_limit_saves_before_it_fails(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    training = {"steps": 100_000, "batch_size": 1, "gradient_accumulation_steps": 1}
    spec = tiny_spec(
        tiny_model,
        tiny_pairs,
        training=training,
        checkpoints={"every": 100_000},
        resources={"device": "cpu", "max_run_seconds": 1},
    )
    with pytest.raises(AlignmentError) as caught:
        list(align(spec, tmp_path, cache_dir=cache_dir))
    assert caught.value.code == "time_limit"
    (folder,) = complete(tmp_path / "checkpoints")
    assert read_manifest(folder).step >= 1


def test_old_checkpoints_are_pruned(tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path) -> None:
    spec = tiny_spec(tiny_model, tiny_pairs, checkpoints={"every": 1, "keep_last": 2}, evaluation=UNJUDGED)
    list(align(spec, tmp_path, cache_dir=cache_dir))
    assert [read_manifest(folder).step for folder in complete(tmp_path / "checkpoints")] == [5, 6]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": {"type": "local", "path": "/nowhere"}}, ModelError, "model_index.json"),
        ({"model": {"type": "catalog", "name": "shapes"}}, ModelError, "was not told where its catalog models are"),
        ({"adapter": {"type": "lora", "target_modules": ["no_such_module"]}}, ModelError, "adapter.target_modules"),
    ],
)
def test_what_cannot_be_run_is_refused_before_training(
    changes: dict[str, object],
    error: type[AlignmentError],
    message: str,
    tiny_model: Path,
    tiny_pairs: Path,
    cache_dir: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=message):
        list(align(tiny_spec(tiny_model, tiny_pairs, **changes), tmp_path, cache_dir=cache_dir))
    assert not complete(tmp_path / "checkpoints")


def test_a_report_without_held_out_prompts_is_refused_before_training(
    tiny_model: Path, cache_dir: Path, tmp_path: Path
) -> None:
    one_group = save_pairs(tmp_path / "one.parquet", num_pairs=1)
    spec = tiny_spec(tiny_model, one_group, evaluation={"rewards": [{"type": "brightness"}]})
    with pytest.raises(DataError, match="no held-out prompts"):
        list(align(spec, tmp_path / "run", cache_dir=cache_dir))


def test_names_are_looked_up_and_stay_in_what_is_saved(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    dataset_id = "ds_" + "0" * 26
    method = {"type": "diffusion_dpo", "dataset": {"type": "stored", "id": dataset_id}, "beta": 500.0}
    spec = tiny_spec(tiny_model, tiny_pairs, model={"type": "catalog", "name": "tiny"}, method=method)
    sources = Sources.model_validate(
        {
            "models": {"tiny": {"type": "local", "path": str(tiny_model)}},
            "datasets": {dataset_id: {"type": "local", "path": str(tiny_pairs)}},
        }
    )
    events = list(align(spec, tmp_path, sources=sources, cache_dir=cache_dir))
    (report,) = of_type(events, EvaluationCompleted)
    manifest = (folder_of(tmp_path / "checkpoints", 6) / "manifest.json").read_text()
    assert report.report["spec_sha256"] == spec.sha256()
    assert dataset_id in manifest
    assert str(tiny_model) not in manifest


def test_a_prompt_that_the_judge_cannot_read_stops_the_run_before_training(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    weights = {"type": "local", "path": str(ASSETS / "classifiers" / "judge")}
    evaluation = {"prompts": ["a xylophone"], "prompt_following": {"type": "attribute_classifier", "weights": weights}}
    with pytest.raises(AlignmentError, match="xylophone") as caught:
        list(align(tiny_spec(tiny_model, tiny_pairs, evaluation=evaluation), tmp_path, cache_dir=cache_dir))
    assert caught.value.code == "prompt_not_scorable"
    assert not complete(tmp_path / "checkpoints")


def test_fp16_on_a_cpu_is_refused_by_name(tiny_model: Path, tiny_pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(AlignmentError, match=r"training\.precision fp16 needs a GPU"):
        list(align(tiny_spec(tiny_model, tiny_pairs, training={"precision": "fp16"}), tmp_path))


def test_an_unusable_dataset_is_refused_with_its_rows(tiny_model: Path, cache_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    table = pq.read_table(save_pairs(path)).to_pylist()
    table[4]["chosen"] = b"no image"
    pq.write_table(pa.Table.from_pylist(table), path)
    with pytest.raises(DataError, match=r"rows 5") as caught:
        list(align(tiny_spec(tiny_model, path), tmp_path / "work", cache_dir=cache_dir))
    assert caught.value.code == "dataset_unusable"
