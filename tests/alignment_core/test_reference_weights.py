"""Keeping and averaging a reference's weights, for LoRA and for full fine-tunes."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from alignment_core.actors import Actors, lora_actors
from alignment_core.errors import CheckpointError, ModelError
from alignment_core.families.sd import StableDiffusion, load_sd
from alignment_core.reference_weights import average, lora_layers
from alignment_core.spec import LocalSource
from tests.alignment_core.test_actors import actors_of, inputs_of

STORES = [("lora", "hard_copy"), ("lora", "dense_delta"), ("lora", "factor_average"), ("full", "hard_copy")]
EXACT = [("lora", "dense_delta"), ("full", "hard_copy")]  # at any alpha


def moving(
    kind: str, store: str, model: Path, dtype: torch.dtype = torch.float32, *, offload_initial: bool = False
) -> tuple[StableDiffusion, Actors]:
    family, actors = actors_of(kind, model, dtype)
    actors.let_reference_move(store, offload_initial=offload_initial)  # pyright: ignore[reportArgumentType]
    return family, actors


def nudge(actors: Actors, seed: int, size: float = 0.05) -> None:
    """Change every trainable weight, as a step would."""
    draws = torch.Generator().manual_seed(seed)
    for parameter in actors.trainable().values():
        parameter.data += size * torch.randn(parameter.shape, generator=draws)


@torch.no_grad()
def update(actors: Actors, alpha: float) -> None:
    actors.set_reference(actors.blend(alpha))


def effective_weights(actors: Actors) -> dict[str, Tensor]:
    """Base weights with the policy's change merged in, by module, float64."""
    merged = {}
    for name, layer in lora_layers(actors.denoiser).items():
        base, a, b = layer.get_base_layer().weight, layer.lora_A["default"].weight, layer.lora_B["default"].weight
        merged[name] = (base.double() + b.double() @ a.double() * layer.scaling["default"]).detach()
    return merged


def test_averages_have_the_values_of_the_reference() -> None:
    def run(start: float, targets: list[float], alpha: float) -> list[float]:
        seen, value = [], torch.tensor([start], dtype=torch.float32)
        for target in targets:
            value = average(value, torch.tensor([target]), alpha)
            seen.append(value.item())
        return seen

    assert run(0.0, [1.0] * 3, 0.6) == pytest.approx([0.6, 0.84, 0.936], rel=1e-5)
    assert run(0.0, [1.0] * 4, 0.01)[-1] == pytest.approx(0.03940399, rel=1e-5)
    assert run(2.0, [3.0, 3.5, 5.0], 0.1) == pytest.approx([2.1, 2.24, 2.516], rel=1e-5)


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20), st.floats(0, 1))
def test_an_average_stays_within_the_range_of_past_values(values: list[float], alpha: float) -> None:
    seen = [values[0]]
    reference = torch.tensor([values[0]])
    for value in values[1:]:
        reference = average(reference, torch.tensor([value]), alpha)
        seen.append(value)
        slack = 1e-5 * max(1.0, max(map(abs, seen)))
        assert min(seen) - slack <= reference.item() <= max(seen) + slack


def test_an_average_is_kept_in_float32_and_shares_no_memory() -> None:
    old, new = torch.ones(1), torch.full((1,), 1.01, dtype=torch.bfloat16)
    for alpha in (0.0, 1e-3, 1.0):
        got = average(old, new, alpha)
        assert got.dtype is torch.float32
        assert got.data_ptr() not in (old.data_ptr(), new.data_ptr())
    assert average(old, old * 1.01, 1e-3).item() > 1.0  # half precision would lose this step


@pytest.mark.parametrize(("kind", "store"), STORES)
def test_a_moving_reference_starts_as_the_initial_model(kind: str, store: str, tiny_model: Path) -> None:
    family, actors = moving(kind, store, tiny_model)
    inputs = inputs_of(family)
    assert actors.reference_moves
    assert torch.equal(actors.predict_reference(*inputs), actors.predict_initial(*inputs))
    nudge(actors, 0)
    assert torch.equal(actors.predict_reference(*inputs), actors.predict_initial(*inputs))


@pytest.mark.parametrize(("kind", "store"), [("lora", "hard_copy"), ("lora", "factor_average"), ("full", "hard_copy")])
def test_a_copy_is_the_policy_bit_for_bit(kind: str, store: str, tiny_model: Path) -> None:
    family, actors = moving(kind, store, tiny_model)
    inputs = inputs_of(family)
    nudge(actors, 0)
    update(actors, 1.0)
    copied = actors.predict_reference(*inputs)
    assert torch.equal(copied, actors.predict_policy(*inputs))
    assert not torch.equal(copied, actors.predict_initial(*inputs))
    nudge(actors, 1)  # the policy goes on alone
    assert torch.equal(actors.predict_reference(*inputs), copied)
    assert not torch.equal(actors.predict_policy(*inputs), copied)


@pytest.mark.parametrize(("kind", "store"), STORES)
def test_alpha_0_leaves_the_reference_alone(kind: str, store: str, tiny_model: Path) -> None:
    family, actors = moving(kind, store, tiny_model)
    nudge(actors, 0)
    update(actors, 1.0)
    before = actors.predict_reference(*inputs_of(family))
    nudge(actors, 1)
    update(actors, 0.0)
    assert torch.equal(actors.predict_reference(*inputs_of(family)), before)


def test_a_dense_delta_copies_what_a_hard_copy_copies(tiny_model: Path) -> None:
    family, dense = moving("lora", "dense_delta", tiny_model)
    _, hard = moving("lora", "hard_copy", tiny_model)
    for actors in (dense, hard):
        nudge(actors, 0)
        update(actors, 1.0)
    inputs = inputs_of(family)
    assert torch.allclose(dense.predict_reference(*inputs), hard.predict_reference(*inputs), atol=1e-5)


def test_a_dense_delta_is_the_average_of_the_full_weights(tiny_model: Path) -> None:
    family, actors = moving("lora", "dense_delta", tiny_model)
    average_of = effective_weights(actors)
    for step in range(5):
        nudge(actors, step)
        update(actors, 0.3)
        average_of = {name: 0.7 * average_of[name] + 0.3 * new for name, new in effective_weights(actors).items()}
    merged = copy.deepcopy(actors.denoiser)
    with torch.no_grad():
        for name, layer in lora_layers(merged).items():
            layer.get_base_layer().weight.copy_(average_of[name])
    merged.disable_adapters()
    inputs = inputs_of(family)
    assert torch.allclose(actors.predict_reference(*inputs), family.predict(merged, *inputs), atol=1e-5)


def test_a_full_reference_is_the_average_of_all_weights(tiny_model: Path) -> None:
    _, actors = moving("full", "hard_copy", tiny_model)
    expected = {name: p.detach().double() for name, p in actors.denoiser.named_parameters()}
    for step in range(4):
        nudge(actors, step)
        update(actors, 0.1)
        expected = {n: 0.9 * expected[n] + 0.1 * p.detach().double() for n, p in actors.denoiser.named_parameters()}
    assert all(torch.allclose(actors.reference[name].double(), value, atol=1e-6) for name, value in expected.items())


def rank_one(actors: Actors, place: int) -> None:
    """B = e_place, A = e_place^T in every adapted layer."""
    for layer in lora_layers(actors.denoiser).values():
        for factor in (layer.lora_A["default"].weight, layer.lora_B["default"].weight):
            factor.data.zero_()
        layer.lora_A["default"].weight.data[0, place] = 1.0
        layer.lora_B["default"].weight.data[place, 0] = 1.0


def test_averaging_factors_misses_the_average_by_what_the_reference_says(tiny_model: Path) -> None:
    _, actors = moving("lora", "factor_average", tiny_model)
    rank_one(actors, 0)
    update(actors, 1.0)
    rank_one(actors, 1)
    assert actors.blending_error(0.1) == pytest.approx(0.1987767469, rel=1e-5)
    assert actors.blending_error(1.0) is None
    update(actors, 0.1)
    layer = next(iter(lora_layers(actors.denoiser)))
    b, a = (actors.reference[f"{layer}.lora_{factor}.default.weight"] for factor in "BA")
    assert (b @ a)[:2, :2].flatten().tolist() == pytest.approx([0.81, 0.09, 0.09, 0.01], rel=1e-5)


def test_the_dense_average_of_the_same_factors_is_right(tiny_model: Path) -> None:
    _, actors = moving("lora", "dense_delta", tiny_model)
    rank_one(actors, 0)
    update(actors, 1.0)
    rank_one(actors, 1)
    update(actors, 0.1)
    delta = next(iter(actors.reference.values()))
    assert delta[:2, :2].flatten().tolist() == pytest.approx([0.9, 0.0, 0.0, 0.1], rel=1e-5)
    assert actors.blending_error(0.1) is None


@pytest.mark.parametrize(("kind", "store"), STORES)
def test_reset_gives_the_initial_model_back(kind: str, store: str, tiny_model: Path) -> None:
    family, actors = moving(kind, store, tiny_model)
    inputs = inputs_of(family)
    nudge(actors, 0)
    update(actors, 0.5)
    assert not torch.equal(actors.predict_reference(*inputs), actors.predict_initial(*inputs))
    actors.reset_reference()
    assert torch.equal(actors.predict_reference(*inputs), actors.predict_initial(*inputs))


@pytest.mark.parametrize(("kind", "store"), STORES)
def test_an_error_in_the_reference_leaves_the_policy_as_it_was(kind: str, store: str, tiny_model: Path) -> None:
    family, actors = moving(kind, store, tiny_model)
    nudge(actors, 0)
    update(actors, 0.5)
    nudge(actors, 1)
    x_t, t, conditioning = inputs_of(family)
    before, trainable = actors.predict_policy(x_t, t, conditioning), list(actors.trainable())
    with pytest.raises(RuntimeError):
        actors.predict_reference(x_t, t, {"prompt_embeds": torch.zeros(2, 3, 5)})  # no such width
    assert list(actors.trainable()) == trainable
    assert torch.equal(actors.predict_policy(x_t, t, conditioning), before)


@pytest.mark.parametrize(("kind", "store"), EXACT)
def test_the_gradient_through_an_average_is_alpha_of_the_policys(kind: str, store: str, tiny_model: Path) -> None:
    family, actors = moving(kind, store, tiny_model)
    nudge(actors, 0, 1e-3)
    inputs = inputs_of(family)

    def gradients(alpha: float) -> Tensor:
        for parameter in actors.trainable().values():
            parameter.grad = None
        actors.predict_with(actors.blend(alpha), *inputs).sum().backward()
        return torch.cat([p.grad.flatten() for p in actors.trainable().values() if p.grad is not None])

    whole, part = gradients(1.0), gradients(0.25)
    assert whole.norm() > 0
    # close to the initial model the network is nearly linear, so the averages' gradients point the same way
    assert torch.nn.functional.cosine_similarity(whole, part, dim=0) > 0.99
    assert (part.norm() / whole.norm()).item() == pytest.approx(0.25, rel=0.05)


def test_a_half_precision_base_does_not_round_the_average_away(tiny_model: Path) -> None:
    family, actors = moving("lora", "dense_delta", tiny_model, torch.bfloat16)
    nudge(actors, 0)
    update(actors, 1e-3)
    deltas = list(actors.reference.values())
    assert {delta.dtype for delta in deltas} == {torch.float32}
    assert all(bool((delta != 0).any()) for delta in deltas)
    assert actors.predict_reference(*inputs_of(family)).dtype is torch.float32


def test_an_offloaded_initial_model_says_the_same(tiny_model: Path) -> None:
    family, kept = moving("full", "hard_copy", tiny_model)
    _, offloaded = moving("full", "hard_copy", tiny_model, offload_initial=True)
    inputs = inputs_of(family)
    assert torch.equal(kept.predict_initial(*inputs), offloaded.predict_initial(*inputs))


def test_only_linear_layers_can_be_averaged_densely(tiny_model: Path) -> None:
    family = load_sd(
        LocalSource(path=str(tiny_model)),
        device=torch.device("cpu"),
        frozen_dtype=torch.float32,
        denoiser_dtype=torch.float32,
    )
    actors = lora_actors(
        family,
        family.denoiser,
        rank=2,
        alpha=2.0,
        target_modules=("conv1",),
        seed=0,
        autocast=lambda: torch.autocast("cpu", enabled=False),
    )
    with pytest.raises(ModelError, match=r"conv1 is a Conv2d, and reference\.ref_store dense_delta"):
        actors.let_reference_move("dense_delta", offload_initial=False)
    actors.let_reference_move("hard_copy", offload_initial=False)
    inputs = inputs_of(family)
    nudge(actors, 0)
    update(actors, 1.0)
    assert torch.equal(actors.predict_reference(*inputs), actors.predict_policy(*inputs))


@pytest.mark.parametrize(("kind", "store"), STORES)
def test_a_saved_reference_that_lost_a_weight_is_refused(kind: str, store: str, tiny_model: Path) -> None:
    _, actors = moving(kind, store, tiny_model)
    saved = dict(actors.reference)
    saved.pop(next(iter(saved)))
    with pytest.raises(CheckpointError, match="is missing or has another shape"):
        actors.load_reference(saved)


def test_a_frozen_reference_keeps_no_weights(tiny_model: Path) -> None:
    for kind in ("lora", "full"):
        _, actors = actors_of(kind, tiny_model)
        assert not actors.reference_moves
        assert actors.reference == {}
        actors.load_reference({})
