"""Every optimiser trains, keeps the state that it says, and goes on from a checkpoint as if nothing had been."""

import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from alignment_core import align, checkpoints
from alignment_core.checkpoints import folder_of
from alignment_core.errors import AlignmentError
from alignment_core.events import StepCompleted
from alignment_core.load.optimizer import new_optimizer
from alignment_core.spec import JobSpec
from alignment_core.spec.training import TrainingSpec
from tests.alignment_core.test_alignment import of_type, same_weights, stop_after
from tests.alignment_core.tiny import tiny_spec

torch.set_num_threads(1)


def spec_of(model: Path, pairs: Path, optimizer: str) -> JobSpec:
    training = {
        "steps": 4,
        "batch_size": 2,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-3,
        "optimizer": optimizer,
    }
    return tiny_spec(model, pairs, training=training, adapter={"type": "full"}, evaluation={})


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "adafactor"])
def test_a_run_that_was_stopped_ends_with_the_weights_of_one_that_was_not(
    optimizer: str, tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = spec_of(tiny_model, tiny_pairs, optimizer)
    steps = of_type(list(align(spec, tmp_path / "whole", cache_dir=cache_dir)), StepCompleted)
    assert any(step.metrics["margin"] != 0 for step in steps)
    stop_after(spec, tmp_path / "stopped", cache_dir, 3)
    list(align(spec, tmp_path / "stopped", cache_dir=cache_dir))
    assert same_weights(*(folder_of(tmp_path / name / "checkpoints", 4) for name in ("whole", "stopped")))


def trained(optimizer: str, steps: int, resumed_at: int | None = None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A matrix large enough for 8 bits that is pulled to a target, and its state; perhaps by two optimisers in turn."""
    draws = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(128, 64, generator=draws))
    target = torch.randn(128, 64, generator=draws)
    settings = TrainingSpec.model_validate({"optimizer": optimizer, "learning_rate": 1e-2})

    def new() -> torch.optim.Optimizer:
        return new_optimizer(settings, [{"params": [weight]}], learning_rate=1e-2, is_fused=False)

    used = new()
    for step in range(steps):
        if step == resumed_at:
            kept = checkpoints.on_host(checkpoints.optimizer_tensors(used, ["weight"]))
            used = new()
            checkpoints.load_optimizer_tensors(used, ["weight"], kept)
        (weight - target).square().sum().backward()
        used.step()
        used.zero_grad()
    return weight.detach(), checkpoints.optimizer_tensors(used, ["weight"])


@pytest.mark.parametrize(("optimizer", "most"), [("adamw", 8.01), ("adamw_8bit", 2.3), ("adafactor", 0.2)])
def test_state_takes_what_is_said_of_it_and_survives_exactly(optimizer: str, most: float) -> None:
    weight, state = trained(optimizer, 6)
    assert sum(tensor.nbytes for tensor in state.values()) <= most * weight.numel()
    resumed, same_state = trained(optimizer, 6, resumed_at=3)
    assert torch.equal(weight, resumed)
    assert state.keys() == same_state.keys()
    assert all(torch.equal(state[key], same_state[key]) for key in state)


def test_8_bits_move_the_weights_nearly_as_32_do() -> None:
    start = trained("adamw", 0)[0]
    exact, coarse = trained("adamw", 20)[0] - start, trained("adamw_8bit", 20)[0] - start
    assert float((exact - coarse).norm() / exact.norm()) < 0.05


def test_adafactor_has_no_rate_of_a_recipe() -> None:
    with pytest.raises(ValidationError, match="relative to the size of the weights"):
        TrainingSpec.model_validate({"optimizer": "adafactor"})


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(AlignmentError, match="needs bitsandbytes"):
        trained("adamw_8bit", 1)


def test_small_weights_are_stepped_at_once_to_the_same_bits() -> None:
    def after_steps(**how: bool) -> list[torch.Tensor]:
        draws = torch.Generator().manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(shape, generator=draws)) for shape in ((8, 4), (4,), (3, 5))]
        if how:
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(weights, lr=1e-3, weight_decay=1e-2, **how)
        else:
            groups = [{"params": weights}]
            optimizer = new_optimizer(TrainingSpec(), groups, learning_rate=1e-3, is_fused=False)
            assert optimizer.param_groups[0]["foreach"]
        for _ in range(5):
            for weight in weights:
                weight.grad = torch.randn(weight.shape, generator=draws)
            optimizer.step()
        return [weight.detach() for weight in weights]

    assert all(map(torch.equal, after_steps(), after_steps(foreach=False)))
