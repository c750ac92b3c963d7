"""Every method with every reference and every timestep strategy: what may be combined runs, and what may not says why.

A new method joins with a line in `METHODS`, and with one in `FORBIDDEN` for what its loss has no place for.
"""

import itertools
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from alignment_core import JobSpec
from alignment_core.events import StepCompleted
from alignment_core.load.accelerator import new_accelerator
from alignment_core.load.run import load_run
from alignment_core.spec.places import Sources
from alignment_core.timesteps.table import TimestepTally
from alignment_core.training.loop import train
from alignment_core.training.run import Run
from tests.alignment_core.tiny import tiny_spec

STEPS, TURN = 4, 2  # two iterations of two optimiser steps; an offline method's reference moves after each step
DRAWING = {
    "prompts": ["a red circle", "a blue square", "a green circle"],
    "num_inference_steps": 4,
    "guidance_scale": 2.0,
}
RANKED, SCORED = {"rewards": [{"type": "brightness"}]}, {"reward": {"type": "brightness"}}
METHODS: dict[str, dict[str, Any]] = {
    "diffusion_dpo": {"type": "diffusion_dpo", "beta": 500.0},  # given the pairs
    "diffusion_kto": {"type": "diffusion_kto", "beta": 250.0},
    "mapo": {"type": "mapo"},
    "tailorpo": {"type": "tailorpo", **DRAWING, **RANKED, "num_trained_steps": 2},
    "tailorpo_g": {"type": "tailorpo", **DRAWING, **RANKED, "num_trained_steps": 2, "guidance": {}},
    "d3po": {"type": "d3po", **DRAWING, **RANKED, "prompts_per_iteration": 4, "num_trained_steps": 2},
    "ddpo": {"type": "ddpo", **DRAWING, **SCORED, "prompts_per_iteration": 4, "num_trained_steps": 2},
    "dpok": {"type": "dpok", **DRAWING, **SCORED, "prompts_per_iteration": 2, "updates_per_iteration": 2},
}
BATCH_SIZE = {"diffusion_kto": 8}  # the least it takes
OFFLINE = {"diffusion_dpo", "diffusion_kto", "mapo"}

GUARD = {"num_samples": 4, "delta": 1e-7, "sticky": False}
REFERENCES: dict[str, dict[str, Any]] = {
    "frozen": {"type": "frozen"},
    "copied": {"type": "hard_copy", "every": 1, "guard": GUARD},
    "averaged": {"type": "ema", "alpha": 0.3, "reg_mode": "through_ema", "lambda_1": 10.0},
    "controlled": {"type": "drift_controlled", "every": 1, "delta": 1e-7, "num_samples": 4, "reg_mode": "log_only"},
    **{name: {"type": "preset", "name": name} for name in ("paper", "seed", "adaptive")},
}
TIMESTEPS: dict[str, dict[str, Any]] = {
    "uniform": {"type": "uniform"},
    "table": {
        "type": "timestep_aware",
        "num_bins": 4,
        "sampler": {"type": "table", "probabilities": [0.5, 0.3, 0.2, 0.0], "importance_correction": True},
        "loss_weight": {"type": "variance", "min_samples": 2, "tnorm": "replace"},
    },
    **{name: {"type": "preset", "name": name} for name in ("paper", "seed", "adaptive")},
}
FORBIDDEN = {
    **{("ddpo", name, None): "ddpo has no reference model" for name in REFERENCES if name != "frozen"},
    **{("mapo", name, None): "mapo has no reference model" for name in REFERENCES if name != "frozen"},
    ("ddpo", None, "paper"): "timesteps.reward_scale multiplies a preference logit, and ddpo has none",
}

Combination = tuple[str, str, str]


def reason_against(method: str, reference: str, timesteps: str) -> str | None:
    """Why the spec refuses the combination, if it does."""
    found = [
        why for (m, r, t), why in FORBIDDEN.items() if m == method and r in (None, reference) and t in (None, timesteps)
    ]
    return found[0] if found else None


EVERYTHING = list(itertools.product(METHODS, REFERENCES, TIMESTEPS))
ALLOWED = [combination for combination in EVERYTHING if reason_against(*combination) is None]
# Each reference and each strategy with the methods that differ most; the rest of the product is slow.
BESIDE = {("copied", "table"), ("averaged", "paper"), ("controlled", "adaptive"), ("seed", "seed")}
SOME = [
    (m, r, t)
    for m, r, t in ALLOWED
    if ((r, t) in BESIDE and m != "tailorpo_g") or (m == "ddpo" and r == "frozen" and t in ("table", "adaptive"))
]
RESUMED = [
    ("diffusion_kto", "controlled", "table", 2),
    ("mapo", "frozen", "adaptive", 2),
    ("tailorpo", "copied", "table", 1),
    ("tailorpo", "controlled", "adaptive", 2),
    ("d3po", "averaged", "table", 1),
    ("d3po", "copied", "adaptive", 3),
    ("ddpo", "frozen", "table", 1),
    ("dpok", "controlled", "table", 3),
]
# What moves nothing and weighs nothing, through the machinery of what does
NEUTRAL = {
    "reference": {"type": "ema", "alpha": 0.0, "reg_mode": "policy_to_init", "lambda_1": 0.0},
    "timesteps": {
        "type": "timestep_aware",
        "num_bins": 4,
        "reward_scale": {"type": "table", "values": [1.0] * 4},
        "loss_weight": {"type": "table", "values": [1.0] * 4},
    },
}


@dataclass(frozen=True)
class Folders:
    """What a spec and a run need to find."""

    model: Path
    pairs: Path
    cache: Path


@pytest.fixture(scope="session")
def folders(tiny_model: Path, tiny_pairs: Path, cache_dir: Path) -> Folders:
    return Folders(tiny_model, tiny_pairs, cache_dir)


def spec_of(folders: Folders, method: str, reference: str, timesteps: str) -> JobSpec:
    """Four optimiser steps of four examples in two micro-batches, without evaluation."""
    chosen = METHODS[method]
    if method in OFFLINE:
        chosen = {**chosen, "dataset": {"type": "local", "path": str(folders.pairs)}}
    return tiny_spec(
        folders.model,
        folders.pairs,
        method=chosen,
        reference=REFERENCES[reference],
        timesteps=TIMESTEPS[timesteps],
        training={
            "steps": STEPS,
            "batch_size": BATCH_SIZE.get(method, 2),
            "gradient_accumulation_steps": 2,
            "learning_rate": 1e-3,
        },
        evaluation={"prompts": ["a red circle"]},
    ).resolved("sd")


def load(spec: JobSpec, folders: Folders) -> Run:
    loading = load_run(spec, Sources(), new_accelerator(spec), folders.cache)
    while True:
        try:
            next(loading)
        except StopIteration as done:
            return done.value


def steps_of(run: Run, first_step: int = 0) -> Iterator[StepCompleted]:
    return train(
        actors=run.actors,
        method=run.method,
        batches=run.method.batches(run.actors, run.timesteps, first_step),
        reference=run.reference,
        timesteps=run.timesteps,
        tally=TimestepTally(run.family.path.num_timesteps),
        optimizer=run.optimizer,  # pyright: ignore[reportArgumentType]  (accelerate's is one by duck typing)
        accelerator=run.accelerator,
        learning_rate_at=run.learning_rate_at,
        max_grad_norm=1.0,
        first_step=first_step,
        total_steps=STEPS,
    )


def policy_of(run: Run) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in run.actors.trainable().items()}


def reference_of(run: Run) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in run.actors.reference.items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def assert_it_trains(run: Run, method: str) -> None:
    """Every number is finite, the policy learns, and the reference moves where an update is due and nowhere else."""
    policy, reference, turn = policy_of(run), reference_of(run), 1 if method in OFFLINE else TURN
    for event in steps_of(run):
        assert all(math.isfinite(value) for value in event.metrics.values())
        due = "ref_updates" in event.metrics
        assert not due or event.step % turn == 0
        moved = not same(reference, reference_of(run))
        assert moved == (due and event.metrics["ref_alpha"] > 0)
        reference = reference_of(run)
    assert not same(policy, policy_of(run))


@pytest.mark.parametrize(("method", "reference", "timesteps"), SOME)
def test_what_may_be_combined_trains(method: str, reference: str, timesteps: str, folders: Folders) -> None:
    assert_it_trains(load(spec_of(folders, method, reference, timesteps), folders), method)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "reference", "timesteps"), sorted(set(ALLOWED) - set(SOME)))
def test_everything_else_that_may_be_combined_trains(
    method: str, reference: str, timesteps: str, folders: Folders
) -> None:
    assert_it_trains(load(spec_of(folders, method, reference, timesteps), folders), method)


@pytest.mark.parametrize(("method", "reference", "timesteps"), sorted(set(EVERYTHING) - set(ALLOWED)))
def test_what_has_no_place_in_a_loss_is_refused_with_the_reason(
    method: str, reference: str, timesteps: str, folders: Folders
) -> None:
    with pytest.raises(ValidationError) as caught:
        spec_of(folders, method, reference, timesteps)
    messages = [error["msg"] for error in caught.value.errors()]
    reasons = [why for (m, r, t), why in FORBIDDEN.items() if m == method and (r == reference or t == timesteps)]
    assert any(reason in message for reason in reasons for message in messages)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "tailorpo_g"])
def test_plug_ins_that_change_nothing_leave_the_plain_method_bit_for_bit(method: str, folders: Folders) -> None:
    plain, neutral = spec_of(folders, method, "frozen", "uniform"), NEUTRAL
    if reason_against(method, "averaged", "uniform") is not None:
        neutral = {**NEUTRAL, "reference": {"type": "frozen"}}
    if method == "ddpo":
        neutral = {**neutral, "timesteps": {**NEUTRAL["timesteps"], "reward_scale": {"type": "constant"}}}
    beside = JobSpec.model_validate(plain.model_dump() | neutral).resolved()
    runs = [load(spec, folders) for spec in (plain, beside)]
    without, with_them = ([event.metrics for event in steps_of(run)] for run in runs)
    assert same(*map(policy_of, runs))
    assert all(told.items() <= more.items() for told, more in zip(without, with_them, strict=True))


@pytest.mark.parametrize(("method", "reference", "timesteps", "stopped_at"), RESUMED)
def test_a_run_stopped_inside_or_between_iterations_ends_as_if_it_had_not(
    method: str, reference: str, timesteps: str, stopped_at: int, folders: Folders, tmp_path: Path
) -> None:
    spec = spec_of(folders, method, reference, timesteps)
    whole, stopped, resumed = (load(spec, folders) for _ in range(3))
    told = [event.metrics for event in steps_of(whole)]
    with closing(steps_of(stopped)) as steps:  # pyright: ignore[reportArgumentType]  (a generator)
        next(event for event in steps if event.step == stopped_at)
        stopped.state = stopped.state.model_copy(update={"step": stopped_at})
        folder = stopped.save(tmp_path)
    resumed.restore(folder)
    assert [event.metrics for event in steps_of(resumed, resumed.state.step)] == told[stopped_at:]
    for state in (policy_of, reference_of):
        assert same(state(resumed), state(whole))
    assert same(resumed.timesteps.state_dict(), whole.timesteps.state_dict())
    assert same(resumed.reference.state_dict(), whole.reference.state_dict())
