"""Remembered errors of a frozen reference: the numbers of asking again, and what they cannot be used with."""

import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from alignment_core import JobSpec, align
from alignment_core.checkpoints import folder_of
from alignment_core.events import PrecisionMeasured, StepCompleted
from alignment_core.methods.diffusion_dpo import DiffusionDPO
from alignment_core.methods.diffusion_kto import DiffusionKTO
from alignment_core.methods.reference_errors import ReferenceErrors
from alignment_core.training.run import Run
from tests.alignment_core.load.test_loading import loaded
from tests.alignment_core.test_alignment import of_type, same_weights, stop_after
from tests.alignment_core.tiny import tiny_spec

CPU = torch.device("cpu")
TRAINING = {"steps": 6, "learning_rate": 1e-2, "validation_fraction": 0.2, "reference_cache": {"draws": 2}}
DPO_BATCH = {"batch_size": 3, "gradient_accumulation_steps": 1}
KTO_BATCH = {"batch_size": 8, "gradient_accumulation_steps": 1}


def spec_of(model: Path, pairs: Path, kind: str, method: dict[str, Any] | None = None, **changes: Any) -> JobSpec:
    dataset = {"type": "local", "path": str(pairs)}
    batch = KTO_BATCH if kind == "diffusion_kto" else DPO_BATCH
    training = {**TRAINING, **batch, **changes.pop("training", {})}
    asked = {"type": kind, "dataset": dataset, "caption_dropout": 0.5, **(method or {})}
    return tiny_spec(model, pairs, method=asked, training=training, **changes)


def method_of(run: Run) -> DiffusionDPO | DiffusionKTO:
    assert isinstance(run.method, DiffusionDPO | DiffusionKTO)
    return run.method


def errors_of(run: Run) -> ReferenceErrors:
    assert run.reference_errors is not None
    return run.reference_errors


def losses(run: Run, method: Any, num_steps: int) -> list[Tensor]:
    """Of each step, while the policy trains."""
    found = []
    for batch in islice(method.batches(run.actors, run.timesteps, 0), num_steps):
        loss = method.loss(run.actors, batch)
        loss.per_example.mean().backward()
        run.optimizer.step()
        run.optimizer.zero_grad()
        found.append(loss.per_example.detach())
    return found


@pytest.mark.parametrize(
    ("kind", "adapter"), [("diffusion_dpo", {"type": "full"}), ("diffusion_kto", {"type": "lora", "rank": 2})]
)
def test_remembered_errors_are_those_of_asking_every_time(
    kind: str, adapter: dict[str, Any], tiny_model: Path, tiny_pairs: Path, tmp_path: Path
) -> None:
    spec = spec_of(tiny_model, tiny_pairs, kind, adapter=adapter)
    one, other = loaded(spec, tmp_path), loaded(spec, tmp_path)
    asked = losses(other, replace(method_of(other), reference_errors=None), 10)
    remembered = losses(one, one.method, 10)
    assert all(torch.equal(a, b) for a, b in zip(asked, remembered, strict=True))
    assert errors_of(one).known.float().mean() > 0.5
    assert not torch.equal(remembered[0], remembered[-1])


def test_the_next_run_on_the_same_draws_asks_the_reference_nothing(
    tiny_model: Path, tiny_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = loaded(spec_of(tiny_model, tiny_pairs, "diffusion_dpo"), tmp_path)
    asked = losses(first, first.method, 12)
    errors_of(first).save()
    another_beta = spec_of(tiny_model, tiny_pairs, "diffusion_dpo", {"beta": 10.0})
    again = loaded(another_beta, tmp_path)
    monkeypatch.setattr(again.actors, "predict_reference", None)  # whoever asks fails
    assert len(losses(again, again.method, 12)) == len(asked)
    other_draws = loaded(spec_of(tiny_model, tiny_pairs, "diffusion_dpo", seed=8), tmp_path)
    assert not errors_of(other_draws).known.any()


def test_a_pair_sees_its_draws_in_turn_and_no_others(tiny_model: Path, tiny_pairs: Path, tmp_path: Path) -> None:
    run = loaded(spec_of(tiny_model, tiny_pairs, "diffusion_dpo"), tmp_path)
    draws = method_of(run).draws if isinstance(run.method, DiffusionDPO) else None
    assert draws is not None
    num = draws.num_examples
    batches = islice(draws.batches(run.actors, run.timesteps, 0), 4 * num // 3)
    seen: dict[int, list[tuple[int, int]]] = {index: [] for index in range(num)}
    for batch in batches:
        assert batch.visits is not None
        for (index, draw), t in zip(batch.visits.tolist(), batch.timesteps.tolist(), strict=True):
            seen[index].append((draw, t))
    assert all([draw for draw, _ in visits][:4] == [0, 1, 0, 1][: len(visits)] for visits in seen.values())
    assert all(len(set(visits)) <= 2 for visits in seen.values())
    assert len({t for visits in seen.values() for _, t in visits}) > num  # not the same for all pairs


@pytest.mark.slow
def test_a_resumed_run_is_the_undisturbed_one_with_and_without_its_cache(
    tiny_model: Path, tiny_pairs: Path, tmp_path: Path
) -> None:
    spec = spec_of(tiny_model, tiny_pairs, "diffusion_dpo", evaluation={})
    list(align(spec, tmp_path / "whole", cache_dir=tmp_path / "cache"))
    for run, forgets in (("kept", False), ("forgotten", True)):
        stop_after(spec, tmp_path / run, tmp_path / "cache", 4)
        if forgets:
            shutil.rmtree(tmp_path / "cache" / "reference_errors")
        list(align(spec, tmp_path / run, cache_dir=tmp_path / "cache"))
        assert same_weights(*(folder_of(tmp_path / name / "checkpoints", 6) for name in ("whole", run)))


def test_a_damaged_file_is_as_good_as_none(tmp_path: Path) -> None:
    path = tmp_path / "errors.safetensors"
    errors = ReferenceErrors.empty(3, 2, 2, CPU, path)
    errors.of(torch.tensor([[1, 0]]), lambda: torch.tensor([[0.5, 0.25]]))
    errors.save()
    assert ReferenceErrors.empty(3, 2, 2, CPU, path).known.sum() == 1
    assert not ReferenceErrors.empty(4, 2, 2, CPU, path).known.any()
    path.write_bytes(path.read_bytes()[:-9])
    assert not ReferenceErrors.empty(3, 2, 2, CPU, path).known.any()


REFUSED = {
    "moves": ("diffusion_dpo", {}, {"reference": {"type": "hard_copy", "every": 2}}, "and reference moves"),
    "mapo": ("mapo", {}, {}, "it asks no reference"),
    "random": ("diffusion_dpo", {"transform": {"crop": "random"}}, {}, "method.transform is random"),
    "mismatched": ("diffusion_kto", {"baseline": "mismatched"}, {}, "prompts of other images"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_errors_that_could_change_are_refused(name: str) -> None:
    kind, method, changes, reason = REFUSED[name]
    with pytest.raises(ValidationError, match=reason):
        spec_of(Path("model"), Path("pairs.parquet"), kind, method, **changes)


def test_a_spec_that_does_not_ask_for_it_keeps_its_hash() -> None:
    training = {"reference_cache": None}
    plain = tiny_spec(Path("model"), Path("pairs.parquet"))
    assert tiny_spec(Path("model"), Path("pairs.parquet"), training=plain.training.model_dump() | training) == plain
    assert "reference_cache" not in str(plain.model_dump(exclude_defaults=True))
    asking = spec_of(Path("model"), Path("pairs.parquet"), "diffusion_dpo")
    without = spec_of(Path("model"), Path("pairs.parquet"), "diffusion_dpo", training=training)
    assert asking.sha256() != without.sha256()


def test_measuring_the_precision_leaves_nothing_remembered(tiny_model: Path, tiny_pairs: Path, tmp_path: Path) -> None:
    training = {"precision": "bf16", "steps": 1}
    spec = spec_of(tiny_model, tiny_pairs, "diffusion_dpo", evaluation={}, training=training)
    events = list(align(spec, tmp_path / "work", cache_dir=tmp_path / "cache"))
    (measured,) = of_type(events, PrecisionMeasured)
    assert measured.logit_error is not None
    assert measured.logit_error > 0
    (step,) = of_type(events, StepCompleted)
    assert step.metrics["margin"] == 0  # policy and reference both in bf16
