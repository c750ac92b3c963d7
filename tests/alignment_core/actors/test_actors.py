"""Policy and reference over one set of base weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.actors.build import full_actors, lora_actors
from alignment_core.families.sd import StableDiffusion
from alignment_core.load.model import load_model
from alignment_core.spec import LocalSource

KINDS = ["lora", "full"]


def actors_of(kind: str, model: Path, dtype: torch.dtype = torch.float32) -> tuple[StableDiffusion, Actors]:
    device = torch.device("cpu")
    family = load_model(LocalSource(path=str(model)), device=device, frozen_dtype=dtype, denoiser_dtype=dtype)

    def autocast() -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32)

    if kind == "full":
        return family, full_actors(family, family.denoiser, autocast=autocast)
    targets = ("to_q", "to_k", "to_v", "to_out.0")
    return family, lora_actors(
        family, family.denoiser, rank=2, alpha=2.0, target_modules=targets, seed=0, autocast=autocast
    )


def inputs_of(family: StableDiffusion) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    x_t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return x_t, torch.tensor([10, 900]), family.encode_prompts(["a red circle", ""])


@pytest.mark.parametrize("kind", KINDS)
def test_policy_and_reference_start_bit_identical(kind: str, tiny_model: Path) -> None:
    family, actors = actors_of(kind, tiny_model)
    inputs = inputs_of(family)
    assert torch.equal(actors.predict_policy(*inputs), actors.predict_reference(*inputs))


@pytest.mark.parametrize("kind", KINDS)
def test_training_moves_the_policy_and_no_other_bit(kind: str, tiny_model: Path) -> None:
    family, actors = actors_of(kind, tiny_model)
    inputs = inputs_of(family)
    before = actors.predict_reference(*inputs)
    frozen = [*family.vae.parameters(), *family.text_encoder.parameters()]
    optimizer = torch.optim.SGD(actors.trainable().values(), lr=1.0)
    for _ in range(2):  # with LoRA's B at zero, A moves from the second step on
        actors.predict_policy(*inputs).square().mean().backward()
        assert all(parameter.grad is None for parameter in frozen)
        optimizer.step()
    assert torch.equal(actors.predict_reference(*inputs), before)
    assert not torch.equal(actors.predict_policy(*inputs), before)


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_has_no_gradient(kind: str, tiny_model: Path) -> None:
    family, actors = actors_of(kind, tiny_model)
    assert not actors.predict_reference(*inputs_of(family)).requires_grad
    assert actors.predict_policy(*inputs_of(family)).requires_grad


def test_the_adapter_is_on_again_after_an_error(tiny_model: Path) -> None:
    _, actors = actors_of("lora", tiny_model)
    trainable = list(actors.trainable())
    with pytest.raises(RuntimeError, match="in the middle"), actors.initial_denoiser():
        raise RuntimeError("in the middle")
    assert list(actors.trainable()) == trainable


def test_lora_holds_the_base_weights_once_and_trains_float32_over_a_half_precision_base(tiny_model: Path) -> None:
    family, actors = actors_of("lora", tiny_model, torch.bfloat16)
    assert {parameter.dtype for parameter in actors.trainable().values()} == {torch.float32}
    assert family.denoiser.conv_in.weight.dtype is torch.bfloat16
    with actors.initial_denoiser() as initial:
        assert initial is actors.denoiser
    assert actors.predict_policy(*inputs_of(family)).dtype is torch.float32


def test_the_adapter_depends_on_the_seed_alone(tiny_model: Path) -> None:
    torch.manual_seed(1)
    first = actors_of("lora", tiny_model)[1].trainable()
    torch.manual_seed(2)
    second = actors_of("lora", tiny_model)[1].trainable()
    assert all(torch.equal(first[name], second[name]) for name in first)
