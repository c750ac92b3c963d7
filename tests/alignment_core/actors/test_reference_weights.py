"""Keeping and averaging a reference's weights, for LoRA and for full fine-tunes."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.actors.build import full_actors, lora_actors
from alignment_core.actors.reference_deltas import supported_layers, truncated
from alignment_core.actors.reference_weights import average, lora_layers
from alignment_core.diffusion.formulas import regression_error
from alignment_core.errors import CheckpointError, ModelError
from alignment_core.families.sd import StableDiffusion
from alignment_core.load.model import load_model
from alignment_core.methods.diffusion_dpo import preference_logit
from alignment_core.spec import LocalSource
from tests.alignment_core.actors.test_actors import actors_of, inputs_of

SUMS = ["dense_delta", "lowrank_sum"]
STORES = [
    *[("lora", store) for store in ("hard_copy", "factor_average", "shared_A", *SUMS)],
    ("full", "hard_copy"),
]
EXACT = [("lora", "dense_delta"), ("lora", "lowrank_sum"), ("lora", "shared_A"), ("full", "hard_copy")]  # at any alpha


def moving(
    kind: str, store: str, model: Path, dtype: torch.dtype = torch.float32, *, offload_initial: bool = False
) -> tuple[StableDiffusion, Actors]:
    family, actors = actors_of(kind, model, dtype)
    keep(actors, store, offload_initial=offload_initial)
    return family, actors


def keep(actors: Actors, store: str, *, rank_cap: int = 64, offload_initial: bool = False) -> None:
    """Let the reference move, in this store."""
    if store == "shared_A":
        actors.freeze_a()
    cap = rank_cap if store == "lowrank_sum" else None
    actors.let_reference_move(store, rank_cap=cap, offload_initial=offload_initial)  # pyright: ignore[reportArgumentType]


def with_convolutions(model: Path) -> tuple[StableDiffusion, Actors]:
    """LoRA on convolutions of kernels 3 and 1 and stride 2, beside linear layers; of scale 1.5."""
    family = load_model(
        LocalSource(path=str(model)),
        device=torch.device("cpu"),
        frozen_dtype=torch.float32,
        denoiser_dtype=torch.float32,
    )
    actors = lora_actors(
        family,
        family.denoiser,
        rank=2,
        alpha=3.0,
        target_modules=("to_q", "conv1", "conv2", "proj_in", "conv_shortcut", "downsamplers.0.conv"),
        seed=0,
        autocast=lambda: torch.autocast("cpu", enabled=False),
    )
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
        change = (b.double().flatten(1) @ a.double().flatten(1)).reshape(base.shape)
        merged[name] = (base.double() + change * layer.scaling["default"]).detach()
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


@pytest.mark.parametrize(("kind", "store"), STORES)
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


def in_precision(store: str, dtype: torch.dtype, model: Path, rank: int = 2) -> tuple[StableDiffusion, Actors]:
    """A LoRA of scale 3/rank over a base of this precision, or a full fine-tune over float32, under autocast."""
    is_full = store == "full"
    family = load_model(
        LocalSource(path=str(model)),
        device=torch.device("cpu"),
        frozen_dtype=dtype,
        denoiser_dtype=torch.float32 if is_full else dtype,
    )

    def autocast() -> torch.autocast:
        return torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32)

    if is_full:
        actors = full_actors(family, family.denoiser, autocast=autocast)
    else:
        targets = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "proj_in")
        actors = lora_actors(
            family, family.denoiser, rank=rank, alpha=3.0, target_modules=targets, seed=0, autocast=autocast
        )
    keep(actors, "hard_copy" if is_full else store)
    return family, actors


def margins(family: StableDiffusion, actors: Actors) -> Tensor:
    """u of two pairs at beta 5000."""
    x_t, t, conditioning = inputs_of(family)
    eps = torch.randn(2, *x_t.shape, generator=torch.Generator().manual_seed(1))
    policy, reference = (predict(x_t, t, conditioning) for predict in (actors.predict_policy, actors.predict_reference))
    m_w, m_l, r_w, r_l = (regression_error(yhat, target) for yhat in (policy, reference) for target in eps)
    return preference_logit(m_w, m_l, r_w, r_l, 5000.0).detach()


@pytest.mark.parametrize("rank", [2, 12])  # 12 is more than some layers have
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("store", ["full", "hard_copy", "dense_delta", "lowrank_sum", "shared_A", "factor_average"])
def test_right_after_a_copy_every_margin_is_0_in_every_precision(
    store: str, dtype: torch.dtype, rank: int, tiny_model: Path
) -> None:
    family, actors = in_precision(store, dtype, tiny_model, rank)
    assert margins(family, actors).tolist() == [0.0, 0.0]
    for seed in range(2):
        nudge(actors, seed)
        if seed:
            update(actors, 0.5)  # a copy after an average, and an average after a copy
        assert margins(family, actors).abs().min() > 0
        update(actors, 1.0)
        assert margins(family, actors).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("store", SUMS)
def test_a_copy_goes_on_as_an_average_and_comes_back_from_a_checkpoint(store: str, tiny_model: Path) -> None:
    _, actors = moving("lora", store, tiny_model)
    nudge(actors, 0)
    update(actors, 1.0)
    copied = {name: value.clone() for name, value in actors.reference.items()}
    nudge(actors, 1)
    update(actors, 0.25)
    averaged = dict(actors.reference)
    assert copied.keys() != averaged.keys()
    actors.load_reference(copied)
    update(actors, 0.25)
    assert all(torch.equal(averaged[name], value) for name, value in actors.reference.items())
    copied.pop(next(iter(copied)))
    with pytest.raises(CheckpointError, match="is missing or has another shape"):
        actors.load_reference(copied)


@pytest.mark.parametrize(("kind", "store"), STORES)
def test_alpha_0_leaves_the_reference_alone(kind: str, store: str, tiny_model: Path) -> None:
    family, actors = moving(kind, store, tiny_model)
    nudge(actors, 0)
    update(actors, 1.0)
    before = actors.predict_reference(*inputs_of(family))
    nudge(actors, 1)
    update(actors, 0.0)
    assert torch.equal(actors.predict_reference(*inputs_of(family)), before)


def average_by_hand(actors: Actors, alphas: list[float]) -> dict[str, Tensor]:
    """Move policy and reference once for each alpha; the average of the policy's merged weights, float64."""
    average_of = effective_weights(actors)  # B is zero: the base
    for step, alpha in enumerate(alphas):
        nudge(actors, step)
        update(actors, alpha)
        new = effective_weights(actors)
        average_of = {name: (1 - alpha) * average_of[name] + alpha * value for name, value in new.items()}
    return average_of


def prediction_with(family: StableDiffusion, actors: Actors, weights: dict[str, Tensor]) -> Tensor:
    """What the denoiser says when these weights stand in its base layers, without any adapter."""
    merged = copy.deepcopy(actors.denoiser)
    with torch.no_grad():
        for name, layer in lora_layers(merged).items():
            layer.get_base_layer().weight.copy_(weights[name])
    merged.disable_adapters()
    return family.predict(merged, *inputs_of(family))


@pytest.mark.parametrize("store", [*SUMS, "shared_A"])
@pytest.mark.parametrize("layers", ["linear", "convolutions"])
def test_an_exact_store_is_the_average_of_the_full_weights(store: str, layers: str, tiny_model: Path) -> None:
    family, actors = with_convolutions(tiny_model) if layers == "convolutions" else actors_of("lora", tiny_model)
    keep(actors, store)
    expected = average_by_hand(actors, [0.3] * 5)
    bases = {type(layer.get_base_layer()) for layer in lora_layers(actors.denoiser).values()}
    assert (torch.nn.Conv2d in bases) == (layers == "convolutions")
    predicted = actors.predict_reference(*inputs_of(family))
    assert torch.allclose(predicted, prediction_with(family, actors, expected), atol=1e-5)
    assert not torch.allclose(predicted, actors.predict_initial(*inputs_of(family)), atol=1e-3)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([0.0, 0.05, 0.3, 0.7, 1.0]), min_size=1, max_size=5))
def test_a_low_rank_sum_is_the_dense_delta_until_it_is_truncated(tiny_model: Path, alphas: list[float]) -> None:
    family, summed = moving("lora", "lowrank_sum", tiny_model)
    _, dense = moving("lora", "dense_delta", tiny_model)
    for actors in (summed, dense):
        average_by_hand(actors, alphas)
    assert summed.blending_metrics(0.5)["ref_discarded_energy"] < 1e-12
    inputs = inputs_of(family)
    assert torch.allclose(summed.predict_reference(*inputs), dense.predict_reference(*inputs), atol=1e-5)


def test_the_rank_of_a_sum_grows_with_each_update_and_stops_at_the_cap(tiny_model: Path) -> None:
    _, actors = actors_of("lora", tiny_model)
    keep(actors, "lowrank_sum", rank_cap=5)
    ranks, lost = [], []
    for step in range(4):
        nudge(actors, step)
        metrics = actors.blending_metrics(0.5)
        update(actors, 0.5)
        ranks.append(max(len(value) for name, value in actors.reference.items() if name.endswith(".A")))
        lost.append(metrics["ref_discarded_energy"])
        assert metrics["ref_rank"] == ranks[-1]
    assert ranks == [2, 4, 5, 5]
    assert lost[:2] == [0.0, 0.0]
    assert 0 < lost[2] < 0.5


def test_a_truncated_product_is_the_nearest_of_its_rank() -> None:
    draws = torch.Generator().manual_seed(0)
    a, b = torch.randn(6, 20, generator=draws), torch.randn(11, 6, generator=draws)
    u, s, v = torch.linalg.svd(b @ a)
    short_a, short_b = truncated(a, b, 4)
    assert (short_a.shape, short_b.shape) == ((4, 20), (11, 4))
    assert torch.allclose(short_b @ short_a, u[:, :4] @ torch.diag(s[:4]) @ v[:4], atol=1e-4)
    assert truncated(a, b, 6) == (a, b)


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
    assert actors.blending_metrics(0.1) == {"ref_factor_average_error": pytest.approx(0.1987767469, rel=1e-5)}
    assert actors.blending_metrics(1.0) == {}
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
    assert actors.blending_metrics(0.1) == {}


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


@pytest.mark.parametrize("store", SUMS)
def test_a_half_precision_base_does_not_round_the_average_away(store: str, tiny_model: Path) -> None:
    family, actors = moving("lora", store, tiny_model, torch.bfloat16)
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


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer with groups")
@pytest.mark.parametrize("store", SUMS)
def test_a_grouped_convolution_is_refused_by_name(store: str) -> None:
    model = torch.nn.ModuleDict({"conv1": torch.nn.Conv2d(4, 4, 3, groups=2)})
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["conv1"]), model)
    with pytest.raises(ModelError, match=rf"target_modules: conv1 is a Conv2d, and reference\.ref_store {store}"):
        supported_layers(model, store)


def test_a_hard_copy_takes_convolutions(tiny_model: Path) -> None:
    family, actors = with_convolutions(tiny_model)
    keep(actors, "hard_copy")
    inputs = inputs_of(family)
    nudge(actors, 0)
    update(actors, 1.0)
    assert torch.equal(actors.predict_reference(*inputs), actors.predict_policy(*inputs))


def test_with_a_shared_a_only_b_is_ever_trained_and_the_file_holds_both(tiny_model: Path, tmp_path: Path) -> None:
    family, actors = moving("lora", "shared_A", tiny_model)
    inputs = inputs_of(family)
    frozen = {n: p.clone() for n, p in actors.denoiser.named_parameters() if ".lora_A." in n}
    optimizer = torch.optim.AdamW(actors.trainable().values(), lr=0.1)
    for _ in range(2):
        actors.predict_initial(*inputs)  # switches the adapter off and on again
        actors.predict_reference(*inputs)
        actors.predict_policy(*inputs).square().mean().backward()
        optimizer.step()
    assert actors.trainable().keys() == actors.reference.keys()
    assert all(".lora_B." in name for name in actors.trainable())
    assert all(torch.equal(actors.denoiser.get_parameter(name), value) for name, value in frozen.items())
    family.save_policy(actors, tmp_path)
    loaded, fresh = actors_of("lora", tiny_model)
    fresh.family.load_policy(fresh, tmp_path)
    assert torch.equal(fresh.predict_policy(*inputs), actors.predict_policy(*inputs))
    assert not torch.equal(actors.predict_policy(*inputs), actors.predict_initial(*inputs))
    assert loaded.fingerprint() == family.fingerprint()


@pytest.mark.parametrize(("kind", "store"), STORES)
def test_a_saved_reference_that_lost_a_weight_is_refused(kind: str, store: str, tiny_model: Path) -> None:
    _, actors = moving(kind, store, tiny_model)
    nudge(actors, 0)
    update(actors, 0.5)
    saved = dict(actors.reference)
    moved = {name: value.clone() for name, value in saved.items()}
    actors.reset_reference()
    actors.load_reference(saved)
    assert all(torch.equal(actors.reference[name], value) for name, value in moved.items())
    saved.pop(next(iter(saved)))
    with pytest.raises(CheckpointError, match="is missing or has another shape"):
        actors.load_reference(saved)


def test_a_frozen_reference_keeps_no_weights(tiny_model: Path) -> None:
    for kind in ("lora", "full"):
        _, actors = actors_of(kind, tiny_model)
        assert not actors.reference_moves
        assert actors.reference == {}
        actors.load_reference({})
