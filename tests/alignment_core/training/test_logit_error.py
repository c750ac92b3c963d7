"""What half precision takes from the logits is measured before the first step, and changes nothing."""

from pathlib import Path

import pytest
import torch

from alignment_core import align
from alignment_core.events import (
    EvaluationCompleted,
    Event,
    PrecisionMeasured,
    RunStarted,
    StepCompleted,
    WarningRaised,
)
from alignment_core.load.precision import half_of, most_exact, prediction_errors, settled
from alignment_core.spec import JobSpec
from alignment_core.training.logit_error import MAX_LOGIT_ERROR, Clamped, logits_of, measure, nudged, rms, tolerance
from alignment_core.training.run import Run
from tests.alignment_core.load.test_combinations import Folders, spec_of
from tests.alignment_core.load.test_loading import loaded as load
from tests.alignment_core.tiny import tiny_spec

TRAINING = {"steps": 2, "batch_size": 2, "gradient_accumulation_steps": 1, "learning_rate": 1e-3, "precision": "bf16"}


def of_type(events: list[Event], kind: type) -> list:
    return [event for event in events if isinstance(event, kind)]


def bf16_spec(model: Path, pairs: Path, beta: float = 500.0, **changes: object) -> JobSpec:
    method = {"type": "diffusion_dpo", "dataset": {"type": "local", "path": str(pairs)}, "beta": beta}
    return tiny_spec(model, pairs, **{"method": method, "training": TRAINING, **changes})


@pytest.fixture(scope="module")
def run(tiny_model: Path, tiny_pairs: Path, cache_dir: Path) -> Run:
    return load(bf16_spec(tiny_model, tiny_pairs).resolved(), cache_dir)


def first_batch(run: Run) -> object:
    return next(run.method.batches(run.actors, run.timesteps, 0))


def test_the_measured_error_is_that_of_the_logit_against_float32_weights(
    run: Run, tiny_model: Path, tiny_pairs: Path, cache_dir: Path
) -> None:
    """Against a second model whose weights are those of the first, widened as a whole."""
    batch, parameters = first_batch(run), run.actors.trainable()
    measured, _ = measure(run.actors, run.method, batch, "bf16", seed=7)
    with nudged(parameters, 7), torch.no_grad():
        with run.actors.computing_in(torch.bfloat16):
            half = logits_of(run.method.loss(run.actors, batch))
        wide = load(tiny_spec(tiny_model, tiny_pairs).resolved(), cache_dir)
        wide.actors.denoiser.load_state_dict({k: v.float() for k, v in run.actors.denoiser.state_dict().items()})
        exact = logits_of(wide.method.loss(wide.actors, batch))
    assert rms(exact) > 0
    assert measured.logit_rms == pytest.approx(rms(exact), rel=1e-6)
    assert measured.logit_error == pytest.approx(rms(half - exact), rel=1e-6)


def test_measuring_leaves_every_weight_as_it_was(run: Run) -> None:
    before = {name: value.clone() for name, value in run.actors.denoiser.state_dict().items()}
    measure(run.actors, run.method, first_batch(run), "bf16", seed=7)
    after = run.actors.denoiser.state_dict()
    assert all(after[name].dtype == value.dtype and torch.equal(after[name], value) for name, value in before.items())


def test_what_is_remembered_of_the_reference_is_neither_used_nor_written(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path, run: Run
) -> None:
    training = {**TRAINING, "reference_cache": {"draws": 2}}
    spec = bf16_spec(tiny_model, tiny_pairs, training=training)
    remembering = load(spec.resolved(), tmp_path / "cache")
    measured, _ = measure(remembering.actors, remembering.method, first_batch(remembering), "bf16", seed=7)
    assert remembering.reference_errors is not None
    assert not remembering.reference_errors.known.any()
    assert measured.logit_error is not None
    assert measured.logit_error > 0


def test_float16_is_the_more_exact_and_is_chosen_while_it_gives_numbers(run: Run) -> None:
    errors = prediction_errors(run.family)
    assert 2 < errors["bf16"] / errors["fp16"] < 20
    assert most_exact(errors) == "fp16"
    assert most_exact({"fp16": float("inf"), "bf16": 0.1}) == "bf16"
    assert most_exact({"fp16": float("inf"), "bf16": float("inf")}) == "bf16"


@pytest.mark.parametrize("adapter", [{"type": "lora", "rank": 2}, {"type": "full"}], ids=["lora", "full"])
def test_a_run_says_how_exact_it_is_and_warns_where_rounding_decides(
    adapter: dict[str, object], tiny_model: Path, tiny_pairs: Path, tmp_path: Path, cache_dir: Path
) -> None:
    spec = bf16_spec(tiny_model, tiny_pairs, beta=500_000.0, adapter=adapter)
    events = list(align(spec, tmp_path, cache_dir=cache_dir))
    (measured,) = of_type(events, PrecisionMeasured)
    assert measured.precision == "bf16"
    assert measured.logit_error > MAX_LOGIT_ERROR
    (warning,) = [one for one in of_type(events, WarningRaised) if one.code == "precision_too_coarse"]
    assert f"err by {measured.logit_error:.2g}" in warning.message
    assert "fp16 errs by" in warning.message
    assert of_type(events, EvaluationCompleted)[0].report["logit_error"] == measured.logit_error


def test_the_first_step_is_what_it_is_without_the_measurement(
    tiny_model: Path, tiny_pairs: Path, tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = bf16_spec(tiny_model, tiny_pairs, evaluation={})
    measured = of_type(list(align(spec, tmp_path / "measured", cache_dir=cache_dir)), StepCompleted)
    monkeypatch.setattr("alignment_core.training.steps._exactness", lambda run, batch: [])
    unmeasured = of_type(list(align(spec, tmp_path / "unmeasured", cache_dir=cache_dir)), StepCompleted)
    assert [step.metrics for step in measured] == [step.metrics for step in unmeasured]


def test_a_cpu_trains_in_float32_where_nothing_is_asked(tiny_model: Path, tiny_pairs: Path, tmp_path: Path) -> None:
    spec = tiny_spec(tiny_model, tiny_pairs, training={**TRAINING, "precision": "auto"}, evaluation={})
    events = list(align(spec, tmp_path / "work", cache_dir=tmp_path / "cache"))
    assert of_type(events, RunStarted)[0].precision == "fp32"
    assert not of_type(events, PrecisionMeasured)


def test_what_auto_means_is_known_from_the_device_or_from_the_checkpoint_or_is_to_be_measured() -> None:
    assert settled("auto", "cpu", None) == "fp32"
    assert settled("auto", "cuda", None) is None
    assert settled("bf16", "cuda", None) == "bf16"
    assert [half_of(one) for one in ("bf16", "fp16", "fp32", None)] == ["bf16", "fp16", None, None]


@pytest.mark.parametrize("method", ["diffusion_kto", "mapo", "d3po", "tailorpo", "ddpo", "dpok"])
def test_every_method_has_a_logit_or_a_ratio_to_measure(
    method: str, tiny_model: Path, tiny_pairs: Path, cache_dir: Path
) -> None:
    spec = spec_of(Folders(tiny_model, tiny_pairs, cache_dir), method, "frozen", "uniform")
    run = load(spec.model_copy(update={"training": spec.training.model_copy(update={"precision": "bf16"})}), cache_dir)
    batch = first_batch(run)
    measured, _ = measure(run.actors, run.method, batch, "bf16", seed=7)
    assert measured.logit_error is not None
    assert measured.logit_rms is not None
    assert measured.logit_error > 0
    assert measured.logit_rms > 0
    limit = tolerance(run.method, run.method.loss(run.actors, batch))
    is_ratio = method in ("ddpo", "dpok")
    assert limit == (run.method.ratio_clamp if is_ratio and isinstance(run.method, Clamped) else MAX_LOGIT_ERROR)
