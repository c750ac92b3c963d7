"""Text encoders that are trained beside the denoiser: each model reads prompts by its own, and the loss is its formula."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from alignment_core.actors.actors import Actors
from alignment_core.actors.adapter_stores import AdapterStore
from alignment_core.actors.build import LoraShape, lora_actors
from alignment_core.actors.reference_weights import lora_layers
from alignment_core.datasets.pairs import PreferencePairs
from alignment_core.errors import ModelError
from alignment_core.families.family import Family, TrainableEncoders
from alignment_core.families.trained_encoders import WithTrainedEncoders
from alignment_core.methods.diffusion_dpo import DiffusionDPO, pair_loss
from alignment_core.methods.pair_batches import PairBatch, PairDraws
from alignment_core.spec.families import FAMILIES
from tests.alignment_core.families.test_every_family import draw, family_of, inputs_of, nudge, of_diffusers
from tests.alignment_core.families.tiny_models import TINY
from tests.alignment_core.tiny_sdxl import save_tiny_sdxl

torch.set_num_threads(1)

DENOISERS, TEXT = ("to_q", "to_v"), LoraShape(3, 6.0, ("q_proj", "out_proj", "fc1"))
PROMPTS = ["a red circle", ""]


@pytest.fixture(scope="module", params=["sd", "sd_2", "sdxl"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY[request.param](tmp_path_factory.mktemp(request.param))


def reading(model: Path) -> WithTrainedEncoders:
    family = family_of(model)
    assert isinstance(family, TrainableEncoders)
    return WithTrainedEncoders(family)


def lora_of(family: Family, text: LoraShape = TEXT) -> Actors:
    return lora_actors(
        family,
        family.denoiser,
        rank=2,
        alpha=2.0,
        target_modules=DENOISERS,
        seed=0,
        autocast=nullcontext,
        text_encoders=text,
    )


def of_encoders(actors: Actors) -> dict[str, torch.nn.Parameter]:
    return actors.trainable_parts()[1]


def test_the_families_that_train_encoders_are_those_that_say_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in FAMILIES:
        family = family_of(TINY[name](tmp_path_factory.mktemp(name)))
        assert isinstance(family, TrainableEncoders) == FAMILIES[name].trains_encoders


def test_policy_reference_and_initial_model_agree_bit_for_bit_at_the_start(model: Path) -> None:
    family = reading(model)
    assert isinstance(family, Family)
    actors, inputs = lora_of(family), inputs_of(family)
    policy = actors.predict_policy(*inputs)
    assert torch.equal(policy, actors.predict_reference(*inputs))
    assert torch.equal(policy, actors.predict_initial(*inputs))
    plain = family_of(model)
    assert torch.equal(policy, plain.predict(plain.denoiser, *inputs_of(plain)))


def test_gradients_reach_every_adapter_that_the_denoiser_hears(model: Path) -> None:
    family = reading(model)
    actors = lora_of(family)
    nudge(actors)
    actors.predict_policy(*inputs_of(family)).square().mean().backward()
    trained = actors.trainable()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in trained.values())
    assert {name.split(".")[0] for name in trained} == set(family.components())
    silent = {name for name, _ in family.denoiser.named_parameters() if ".lora_" in name} - trained.keys()
    assert all(name.startswith("text_encoder.") and ".layers.1." in name for name in silent)
    assert bool(silent) == (family.keys.family == "sdxl")  # whose first encoder's last layer nobody reads


def test_the_reference_reads_as_it_did_when_the_policys_encoders_have_moved(model: Path) -> None:
    family = reading(model)
    actors, inputs = lora_of(family), inputs_of(family)
    before = actors.predict_reference(*inputs)
    with torch.no_grad():
        for parameter in of_encoders(actors).values():
            parameter += 0.2
    assert torch.equal(actors.predict_reference(*inputs), before)
    assert not torch.allclose(actors.predict_policy(*inputs), before, atol=1e-4)


def test_no_prompt_is_zeros_where_the_pipeline_wants_it_and_else_read_by_the_policy(
    model: Path, tmp_path: Path
) -> None:
    for folder in (model, save_tiny_sdxl(tmp_path, force_zeros=False)):
        family = reading(folder)
        actors = lora_of(family)
        frozen = actors.read_by_initial(family.encode_empty())["prompt_embeds"]
        nudge(actors, 0.3)
        read = family.denoiser.read(family.encode_empty())["prompt_embeds"].detach()
        zeros = family.keys.family == "sdxl" and folder == model
        assert torch.equal(actors.read_by_initial(family.encode_empty())["prompt_embeds"], frozen)
        assert read.any() == (not zeros)
        assert torch.allclose(read, frozen, atol=1e-3) == zeros


# --- the loss ----------------------------------------------------------------------------------------------------------

BETA, T = 500.0, [40, 700]


@pytest.fixture
def wide(model: Path, monkeypatch: pytest.MonkeyPatch) -> WithTrainedEncoders:
    """In float64 throughout: what the library makes float32 is float64 here."""
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    inner = cast(Any, family_of(model))
    for network in inner.components().values():
        network.to(torch.float64)
    inner.path = replace(inner.path, abar=inner.path.abar.to(torch.float64))
    return WithTrainedEncoders(inner)


def drawn(*seeds: int) -> list[Tensor]:
    return [torch.randn(2, 4, 8, 8, generator=Generator().manual_seed(s), dtype=torch.float64) for s in seeds]


FRAMES_W, FRAMES_L = torch.tensor([[40, 30, 0, 3], [16, 16, 0, 0.0]]), torch.tensor([[20, 90, 5, 0], [16, 33, 0, 8.0]])


def pair_batch(family: WithTrainedEncoders) -> PairBatch:
    x_0_w, x_0_l, eps = drawn(1, 2, 3)
    return PairBatch(
        x_0_w=x_0_w,
        x_0_l=x_0_l,
        eps=eps,
        timesteps=torch.tensor(T),
        reward_scale=torch.ones(2, dtype=torch.float64),
        conditioning=family.encode_prompts(PROMPTS),
        label=torch.ones(2, dtype=torch.float64),
        image_w=family.image_conditioning(FRAMES_W, 16),
        image_l=family.image_conditioning(FRAMES_L, 16),
    )


def merged(model: Path, actors: Actors) -> Any:
    """diffusers' own pipeline in float64 with alpha / rank B A added to its weights by hand."""
    pipeline = of_diffusers(model)
    for name in ("unet", "text_encoder", "text_encoder_2"):
        if (network := getattr(pipeline, name, None)) is None:
            continue
        network.to(torch.float64)
        for module, layer in lora_layers(actors.denoiser.get_submodule(name)).items():
            a, b = (side["default"].weight.detach() for side in (layer.lora_A, layer.lora_B))
            scale = 1.0 if name == "unet" else TEXT.alpha / TEXT.rank
            network.get_submodule(module).weight.data += scale * b @ a
    return pipeline


@torch.no_grad()
def asked_by_hand(pipeline: Any, x_t: Tensor, frames: Tensor) -> Tensor:
    """What the U-Net says where the prompts are read as diffusers' scripts read them."""

    def ids(tokenizer: Any) -> Tensor:
        options = {"padding": "max_length", "max_length": 8, "truncation": True, "return_tensors": "pt"}
        return tokenizer(PROMPTS, **options).input_ids

    if not hasattr(pipeline, "text_encoder_2"):
        text = pipeline.text_encoder(ids(pipeline.tokenizer))[0]
        return pipeline.unet(x_t, torch.tensor(T), encoder_hidden_states=text).sample
    first = pipeline.text_encoder(ids(pipeline.tokenizer), output_hidden_states=True)
    second = pipeline.text_encoder_2(ids(pipeline.tokenizer_2), output_hidden_states=True)
    text = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
    pooled = second.text_embeds
    text[1], pooled[1] = 0, 0  # of no prompt
    sizes = torch.cat([frames, torch.full((2, 2), 16.0)], dim=1).to(torch.float64)
    added = {"text_embeds": pooled, "time_ids": sizes}
    return pipeline.unet(x_t, torch.tensor(T), encoder_hidden_states=text, added_cond_kwargs=added).sample


def test_the_loss_is_the_formula_of_two_models_that_each_read_by_themselves(
    model: Path, wide: WithTrainedEncoders
) -> None:
    actors = lora_of(wide)
    for parameter in actors.trainable().values():
        parameter.data = parameter.data.double()
    generator = Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in actors.trainable().values():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    batch = pair_batch(wide)
    draws = PairDraws(object.__new__(PreferencePairs), 0.0, 2, 1, 0)  # the batch is given
    method = DiffusionDPO(draws, pair_loss("sigmoid"), BETA, "mean", half_factor=True, in_eps_units=False)
    loss = method.loss(actors, batch).per_example
    policy, reference = merged(model, actors), of_diffusers(model)
    for name in wide.components():
        getattr(reference, name).to(torch.float64)
    abar_t = policy.scheduler.alphas_cumprod.to(torch.float64)[torch.tensor(T)][:, None, None, None]

    def error(pipeline: Any, x_0: Tensor, frames: Tensor) -> Tensor:
        x_t = abar_t.sqrt() * x_0 + (1 - abar_t).sqrt() * batch.eps
        target = batch.eps
        if pipeline.scheduler.config.prediction_type == "v_prediction":
            target = abar_t.sqrt() * batch.eps - (1 - abar_t).sqrt() * x_0
        return ((asked_by_hand(pipeline, x_t, frames) - target) ** 2).mean(dim=(1, 2, 3))

    m_w, r_w = (error(one, batch.x_0_w, FRAMES_W) for one in (policy, reference))
    m_l, r_l = (error(one, batch.x_0_l, FRAMES_L) for one in (policy, reference))
    expected = -F.logsigmoid(-BETA / 2 * ((m_w - m_l) - (r_w - r_l)))
    assert loss.dtype is torch.float64
    assert torch.allclose(loss, expected, rtol=0, atol=1e-9)
    assert (expected - torch.log(torch.tensor(2.0))).abs().min() > 1e-3  # far from where nothing is learnt


# --- a reference that moves --------------------------------------------------------------------------------------------

STORES: list[AdapterStore] = ["hard_copy", "dense_delta", "lowrank_sum", "shared_A", "factor_average"]


@pytest.mark.parametrize("store", STORES)
def test_a_reference_that_moves_reads_by_encoders_that_move_with_it(store: AdapterStore, model: Path) -> None:
    family = reading(model)
    actors, inputs = lora_of(family), inputs_of(family)
    if store == "shared_A":
        actors.freeze_a()
    actors.let_reference_move(store, rank_cap=8, offload_initial=False)
    initial = actors.predict_policy(*inputs).detach()
    assert torch.equal(actors.predict_reference(*inputs), initial)
    factors_b = {name: one for name, one in actors.trainable().items() if ".lora_B." in name}

    def set_b(size: float) -> Tensor:
        draws = Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in factors_b.values():
                parameter.copy_(size * torch.randn(parameter.shape, generator=draws))
        return actors.predict_policy(*inputs).detach()

    moved = set_b(0.4)
    actors.set_reference(actors.blend(1.0))
    assert torch.equal(actors.predict_reference(*inputs), moved)
    actors.set_reference({name: value.clone() for name, value in actors.reference.items()})
    set_b(0.2)
    actors.set_reference(actors.blend(0.5))
    assert torch.allclose(actors.predict_reference(*inputs), set_b(0.3), atol=1e-5)
    assert torch.equal(actors.predict_initial(*inputs), initial)
    blended = actors.predict_with(actors.blend(0.5), *inputs)
    blended.square().mean().backward()  # as through_ema does
    assert all(one.grad is not None and one.grad.any() for name, one in factors_b.items() if "text_encoder" in name)
    actors.reset_reference()
    assert torch.equal(actors.predict_reference(*inputs), initial)


# --- what is saved -----------------------------------------------------------------------------------------------------


def test_a_policy_comes_back_from_disk_exactly(model: Path, tmp_path: Path) -> None:
    trained, fresh = lora_of(reading(model)), lora_of(reading(model))
    nudge(trained)
    cast(Family, trained.family).save_policy(trained, tmp_path)
    cast(Family, fresh.family).load_policy(fresh, tmp_path)
    for name, parameter in trained.trainable().items():
        assert torch.equal(fresh.trainable()[name], parameter), name


def test_diffusers_draws_what_was_trained_by_the_encoders_that_were_trained(model: Path, tmp_path: Path) -> None:
    family = reading(model)
    actors = lora_of(family)
    nudge(actors, 0.3)
    family.save_policy(actors, tmp_path)
    theirs, plain = cast(Any, family_of(model)), family_of(model)
    pipeline = of_diffusers(model)
    pipeline.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    for name in family.components():
        setattr(theirs, "denoiser" if name == "unet" else name, getattr(pipeline, name))
    ours = draw(family, actors.denoiser, scale=3.0)
    assert torch.allclose(ours, draw(theirs, theirs.denoiser, scale=3.0), atol=1e-5)
    with torch.no_grad():
        for parameter in of_encoders(actors).values():
            parameter.zero_()
    assert not torch.allclose(ours, draw(family, actors.denoiser, scale=3.0), atol=1e-4)
    with actors.initial_denoiser() as denoiser:
        assert torch.equal(draw(family, denoiser), draw(plain, plain.denoiser))


def test_an_encoder_without_such_layers_is_told_by_its_field(model: Path) -> None:
    with pytest.raises(ModelError, match=r"adapter.text_encoder.target_modules: .*no_such"):
        lora_of(reading(model), LoraShape(2, 2.0, ("no_such",)))
