"""Whole runs of the tiny model with a moving reference and timestep-aware training."""

from pathlib import Path
from typing import Any

import pytest
import torch

from alignment_core import JobSpec, align
from alignment_core.checkpoints import STATE, folder_of, load_tensors
from alignment_core.events import Event, RunCompleted, StepCompleted, TimestepTable, ValidationCompleted
from tests.alignment_core.test_alignment import of_type, same_weights, stop_after
from tests.alignment_core.test_processes import TWO, events_of, start
from tests.alignment_core.tiny import UNJUDGED, tiny_spec

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

LORA, FULL = {"type": "lora", "rank": 2}, {"type": "full"}
GUARD = {"num_samples": 8, "delta": 1e-6, "sticky": False}
HARD_COPY = {"type": "hard_copy", "every": 2, "guard": None}
VARIANCE = {
    "type": "timestep_aware",
    "num_bins": 2,
    "sampler": {"type": "discounted"},
    "reward_scale": {"type": "minmax_inv_sqrt_snr"},
    "loss_weight": {"type": "variance", "min_samples": 2},
}
DRAWN = {"training": {"steps": 6, "batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-3}}

COMBINATIONS = {
    "copied": {"reference": HARD_COPY, "adapter": LORA, "timesteps": VARIANCE},
    "copied-full": {"reference": HARD_COPY, "adapter": FULL, "timesteps": VARIANCE},
    "guarded": {"reference": {**HARD_COPY, "guard": GUARD}, "adapter": LORA},
    "frozen-on-the-way-full": {"reference": {**HARD_COPY, "guard": {**GUARD, "sticky": True}}, "adapter": FULL},
    "averaged": {
        "reference": {"type": "ema", "alpha": 0.1, "reg_mode": "through_ema", "lambda_1": 10.0},
        "adapter": LORA,
    },
    "averaged-full": {
        "reference": {"type": "ema", "alpha": 0.1, "reg_mode": "through_ema", "lambda_1": 10.0},
        "adapter": FULL,
    },
    "factors": {"reference": {"type": "ema", "alpha": 0.1, "ref_store": "factor_average"}, "adapter": LORA},
    "low ranks": {
        "reference": {"type": "ema", "alpha": 0.3, "ref_store": "lowrank_sum", "ref_rank_cap": 5},
        "adapter": LORA,
    },
    "shared A": {
        "reference": {"type": "ema", "alpha": 0.3, "ref_store": "shared_A", "reg_mode": "through_ema"},
        "adapter": LORA,
    },
    "convolutions": {
        "reference": {"type": "ema", "alpha": 0.3},
        "adapter": {**LORA, "target_modules": ["to_q", "conv1", "conv2", "proj_in"]},
    },
    "controlled": {
        "reference": {"type": "drift_controlled", "every": 2, "delta": 1e-7, "num_samples": 8},
        "adapter": LORA,
    },
    "seed": {"reference": {"type": "preset", "name": "seed"}, "timesteps": {"type": "preset", "name": "seed"}},
}


def unjudged(model: Path, pairs: Path, **changes: Any) -> JobSpec:
    """The tiny run without the comparison at its end."""
    return tiny_spec(model, pairs, evaluation=UNJUDGED, **changes)


def run(spec: JobSpec, workdir: Path, cache_dir: Path) -> list[Event]:
    return list(align(spec, workdir, cache_dir=cache_dir))


def metrics_of(events: list[Event]) -> list[dict[str, float]]:
    return [event.metrics for event in of_type(events, StepCompleted)]


def last(workdir: Path) -> Path:
    return folder_of(workdir / "checkpoints", 6)


def same_policy(one: Path, other: Path) -> bool:
    """The trained weights and the optimiser agree in every bit, whatever the plug-ins keep."""
    names = ["pytorch_lora_weights.safetensors", f"{STATE}/optimizer.safetensors"]
    pairs = [(load_tensors(last(one) / name), load_tensors(last(other) / name)) for name in names]
    return all(a and a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a) for a, b in pairs)


@pytest.fixture(scope="module")
def frozen(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Event]]:
    """The run without a plug-in: its work folder, and its events."""
    workdir = tmp_path_factory.mktemp("frozen")
    return workdir, run(unjudged(tiny_model, tiny_pairs), workdir, cache_dir)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_a_stopped_run_resumes_bit_for_bit(
    name: str, tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = unjudged(tiny_model, tiny_pairs, **COMBINATIONS[name])
    whole = run(spec, tmp_path / "whole", cache_dir)
    stop_after(spec, tmp_path / "stopped", cache_dir, 3)
    resumed = run(spec, tmp_path / "stopped", cache_dir)
    assert (last(tmp_path / "whole") / STATE / "reference_weights.safetensors").is_file()
    assert same_weights(last(tmp_path / "whole"), last(tmp_path / "stopped"))
    undisturbed = [m for event in of_type(whole, StepCompleted) if event.step > 3 for m in [event.metrics]]
    assert metrics_of(resumed) == undisturbed


@pytest.mark.parametrize("adapter", [LORA, FULL], ids=["lora", "full"])
def test_right_after_a_copy_u_is_0_and_the_margin_against_the_initial_model_goes_on(
    adapter: dict[str, Any], tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = unjudged(tiny_model, tiny_pairs, reference=HARD_COPY, adapter=adapter)
    steps = metrics_of(run(spec, tmp_path, cache_dir))
    for index, metrics in enumerate(steps):
        after_a_copy = index % 2 == 0
        assert (metrics["margin"] == 0.0) == after_a_copy
        assert metrics["implicit_accuracy"] == 0.5 or not after_a_copy
        assert (metrics["margin_vs_init"] != 0.0) == (index > 0)
        assert metrics.get("ref_updates") == (None if after_a_copy else (index + 1) / 2)
    assert steps[0]["ref_drift_batch_eps_dist"] == 0.0 < steps[2]["ref_drift_batch_eps_dist"]


@pytest.mark.parametrize(
    "reference",
    [
        {"type": "ema", "alpha": 0.0},
        {"type": "hard_copy", "every": 1, "start": 100, "guard": None},
        {"type": "ema", "alpha": 0.0, "reg_mode": "log_only", "lambda_1": 100.0},
    ],
    ids=["alpha 0", "never due", "log only"],
)
def test_a_reference_that_does_not_move_is_the_frozen_one(
    reference: dict[str, Any],
    frozen: tuple[Path, list[Event]],
    tiny_model: Path,
    tiny_pairs: Path,
    cache_dir: Path,
    tmp_path: Path,
) -> None:
    still = metrics_of(run(unjudged(tiny_model, tiny_pairs, reference=reference), tmp_path, cache_dir))
    assert same_policy(frozen[0], tmp_path)
    for plain, moving in zip(metrics_of(frozen[1]), still, strict=True):
        assert {name: moving[name] for name in plain} == plain
        assert moving["margin_vs_init"] == plain["margin"]


def test_log_only_changes_no_gradient(tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path) -> None:
    def steps(lambda_1: float) -> list[dict[str, float]]:
        reference = {"type": "ema", "alpha": 0.3, "reg_mode": "log_only", "lambda_1": lambda_1}
        spec = unjudged(tiny_model, tiny_pairs, reference=reference)
        return metrics_of(run(spec, tmp_path / str(lambda_1), cache_dir))

    told, silent = steps(5.0), steps(0.0)
    assert told[-1]["ref_penalty"] > 0 == silent[-1]["ref_penalty"]
    assert same_policy(tmp_path / "5.0", tmp_path / "0.0")


@pytest.mark.parametrize("mode", ["policy_to_init", "through_ema"])
def test_a_penalty_holds_the_policy_back(
    mode: str, tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    def drift(lambda_1: float) -> float:
        reference = {"type": "ema", "alpha": 0.5, "reg_mode": mode, "lambda_1": lambda_1, "reg_units": "mse"}
        spec = unjudged(tiny_model, tiny_pairs, reference=reference)
        return metrics_of(run(spec, tmp_path / f"{lambda_1}", cache_dir))[-1]["ref_drift_batch_eps_dist"]

    assert drift(1e5) < 0.7 * drift(0.0)


def test_lambda_and_w_of_1_are_plain_dpo_bit_for_bit(
    frozen: tuple[Path, list[Event]], tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    ones = {
        "type": "timestep_aware",
        "num_bins": 4,
        "reward_scale": {"type": "table", "values": [1.0] * 4},
        "loss_weight": {"type": "table", "values": [1.0] * 4},
    }
    aware = run(unjudged(tiny_model, tiny_pairs, timesteps=ones), tmp_path, cache_dir)
    assert metrics_of(frozen[1]) == metrics_of(aware)
    assert same_weights(last(frozen[0]), last(tmp_path))


def test_the_weights_of_the_variance_reach_the_loss(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    events = run(unjudged(tiny_model, tiny_pairs, timesteps=VARIANCE), tmp_path, cache_dir)
    (table,) = of_type(events, TimestepTable)
    weights = {round(row.weight, 3) for row in table.bins if row.weight is not None}
    assert len(weights) > 1  # `add`: 1 + w, and w is 1 on average
    state = load_tensors(last(tmp_path) / STATE / "timesteps.safetensors")
    assert state["num_samples"].sum() == 24


@pytest.mark.parametrize(("against", "learns"), [(None, True), ("initial", True), ("reference", False)])
def test_a_copy_does_not_reset_what_is_measured_against_the_initial_model(
    against: str | None, learns: bool, tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    weight = {**VARIANCE["loss_weight"], "stat_against": against}
    reference = {**HARD_COPY, "every": 1}
    spec = unjudged(tiny_model, tiny_pairs, reference=reference, timesteps={**VARIANCE, "loss_weight": weight})
    run(spec, tmp_path, cache_dir)
    state = load_tensors(last(tmp_path) / STATE / "timesteps.safetensors")
    assert bool((state["second"] > 0).any()) == learns  # against a copy of itself the policy has no margin


def test_tables_come_with_each_validation_and_at_the_end(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    training = {"steps": 6, "batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-3}
    training |= {"validation_fraction": 0.2, "validate_every": 4}
    events = run(unjudged(tiny_model, tiny_pairs, training=training, reference=HARD_COPY), tmp_path, cache_dir)
    tables = of_type(events, TimestepTable)
    assert [(table.split, table.since_step, table.step) for table in tables] == [
        ("validation", 0, 4),
        ("training", 0, 4),
        ("validation", 0, 6),
        ("training", 4, 6),
    ]
    assert [sum(row.count for row in table.bins) for table in tables if table.split == "training"] == [16, 8]
    validation = of_type(events, ValidationCompleted)[-1].metrics
    assert validation["margin"] == 0.0 != validation["margin_vs_init"]  # step 6 ended with a copy


@pytest.mark.parametrize("preset", ["paper", "seed", "adaptive"])
@pytest.mark.parametrize("adapter", [LORA, FULL], ids=["lora", "full"])
def test_presets_run(
    preset: str, adapter: dict[str, Any], tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    chosen = {"type": "preset", "name": preset}
    spec = tiny_spec(tiny_model, tiny_pairs, reference=chosen, timesteps=chosen, adapter=adapter)
    events = run(spec, tmp_path, cache_dir)
    assert isinstance(events[-1], RunCompleted)
    assert "margin_vs_init" in metrics_of(events)[-1]


def test_v_prediction_takes_both_plug_ins(
    tiny_v_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = unjudged(tiny_v_model, tiny_pairs, reference={**HARD_COPY, "guard": GUARD}, timesteps=VARIANCE)
    steps = metrics_of(run(spec, tmp_path, cache_dir))
    assert steps[1]["ref_drift_mse_gap"] == 0.0  # measured before the first copy


def test_bfloat16_still_copies_the_policy_exactly(tiny_model: Path, tiny_pairs: Path, tmp_path: Path) -> None:
    training = {**DRAWN["training"], "precision": "bf16"}
    for adapter in (LORA, FULL):
        spec = unjudged(tiny_model, tiny_pairs, reference=HARD_COPY, adapter=adapter, training=training)
        steps = metrics_of(run(spec, tmp_path / str(adapter["type"]), tmp_path / "cache"))
        assert [steps[index]["margin"] for index in (0, 2, 4)] == [0.0] * 3
        assert steps[3]["margin"] != 0.0


@pytest.mark.slow
def test_two_processes_measure_and_weigh_like_one(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    reference = {**HARD_COPY, "guard": {**GUARD, "delta": 1.0}, "reg_mode": "through_ema"}
    plugins = {"reference": reference, "timesteps": VARIANCE}

    def started(workdir: str, batch_size: int, launcher: list[str]) -> list[dict[str, Any]]:
        training = {**DRAWN["training"], "batch_size": batch_size}
        spec = unjudged(tiny_model, tiny_pairs, training=training, **plugins)
        return events_of(start(spec, tmp_path / workdir, cache_dir, launcher))

    runs = [started("two", 1, TWO), started("one", 2, [TWO[0]])]
    steps = [[event["metrics"] for event in events if event["type"] == "step_completed"] for events in runs]
    assert len(steps[0]) == len(steps[1]) == 6
    for two, one in zip(*steps, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
    drifts = [[metrics["ref_drift_mse_gap"] for metrics in run if "ref_drift_mse_gap" in metrics] for run in steps]
    assert len(drifts[0]) == 3
    assert drifts[0] == pytest.approx(drifts[1], rel=1e-2, abs=1e-7)
    states = [load_tensors(last(tmp_path / name) / STATE / "timesteps.safetensors") for name in ("two", "one")]
    assert states[0]["num_samples"].tolist() == states[1]["num_samples"].tolist()
    assert torch.allclose(states[0]["second"], states[1]["second"], rtol=1e-2)
