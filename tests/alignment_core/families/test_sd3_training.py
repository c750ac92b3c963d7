"""Stable Diffusion 3 is trained by every method and every plug-in, and its losses are what the formulas say."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from alignment_core import align
from alignment_core.actors.actors import Actors, lora_actors
from alignment_core.checkpoints import latest
from alignment_core.errors import ModelError
from alignment_core.events import RunCompleted
from alignment_core.families.sd3 import StableDiffusion3, load_sd3
from alignment_core.families.source import ModelFolder
from alignment_core.methods.diffusion_dpo import DiffusionDPO
from alignment_core.methods.mapo import MaPO
from alignment_core.methods.pair_batches import PairBatch
from alignment_core.rollouts.rollout import log_prob
from alignment_core.shapes import Latents, Times
from alignment_core.spec.families import FAMILIES
from tests.alignment_core.load.test_combinations import (
    Folders,
    assert_it_trains,
    load,
    spec_of,
)
from tests.alignment_core.tiny import save_pairs, tiny_spec
from tests.alignment_core.tiny_sd3 import save_tiny_sd3

torch.set_num_threads(1)

# Each method once, beside the plug-ins that do most.
SOME = [
    ("diffusion_dpo", "averaged", "paper"),
    ("diffusion_kto", "controlled", "adaptive"),
    ("mapo", "frozen", "paper"),
    ("tailorpo", "seed", "seed"),
    ("tailorpo_g", "frozen", "uniform"),
    ("d3po", "copied", "table"),
    ("ddpo", "frozen", "adaptive"),
    ("dpok", "averaged", "paper"),
]


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_sd3(tmp_path_factory.mktemp("sd3"))


@pytest.fixture(scope="module")
def folders(sd3: Path, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    pairs = save_pairs(tmp_path_factory.mktemp("pairs") / "pairs.parquet")
    return Folders(sd3, pairs, tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize(("method", "reference", "timesteps"), SOME)
def test_every_method_trains_it(method: str, reference: str, timesteps: str, folders: Folders) -> None:
    assert_it_trains(load(spec_of(folders, method, reference, timesteps), folders), method)


def test_a_beta_of_flow_matching_is_refused_where_there_is_none(tiny_model: Path, folders: Folders) -> None:
    of_flow = spec_of(folders, "diffusion_dpo", "frozen", "uniform")
    method = of_flow.method.model_copy(update={"flow_beta": "one_minus_s_squared"})
    spec = of_flow.model_copy(update={"method": method})
    assert load(spec, folders).family.path.prediction_type == "flow"
    elsewhere = Folders(tiny_model, folders.pairs, folders.cache)
    other = spec_of(elsewhere, "diffusion_dpo", "frozen", "uniform")
    with pytest.raises(ModelError, match=r"method\.flow_beta is for flow matching, and this model predicts epsilon"):
        load(other.model_copy(update={"method": method}), elsewhere)


# --- in float64, by hand ---------------------------------------------------------------------------------------------


class WideActors(Actors):
    """Networks whose predictions stay float64."""

    def predict_policy(self, x_t: Latents, times: Times, conditioning: dict[str, Tensor]) -> Latents:
        return self.family.predict(self.denoiser, x_t, times, conditioning)

    def predict_initial(self, x_t: Latents, times: Times, conditioning: dict[str, Tensor]) -> Latents:
        with torch.no_grad(), self.initial_denoiser() as denoiser:
            return self.family.predict(denoiser, x_t, times, conditioning)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def actors(sd3: Path) -> WideActors:
    family = load_sd3(
        ModelFolder(sd3, None), device=torch.device("cpu"), frozen_dtype=torch.float32, denoiser_dtype=torch.float32
    )
    targets = FAMILIES["sd3"].lora_targets
    adapted = lora_actors(
        family, family.denoiser, rank=2, alpha=2.0, target_modules=targets, seed=0, autocast=nullcontext
    )
    with torch.no_grad():
        for number, (name, parameter) in enumerate(adapted.trainable().items()):
            if ".lora_B." in name:
                parameter.copy_(0.2 * normal(*parameter.shape, seed=number))
    return WideActors(family, family.denoiser.double(), initial_copy=None, autocast=nullcontext)


@pytest.fixture
def batch(actors: WideActors) -> PairBatch:
    assert isinstance(actors.family, StableDiffusion3)
    text = actors.family.encode_prompts(["a red circle", "a blue square", ""])
    return PairBatch(
        x_0_w=normal(3, 16, 8, 8, seed=1),
        x_0_l=normal(3, 16, 8, 8, seed=2),
        eps=normal(3, 16, 8, 8, seed=3),
        timesteps=torch.tensor([40, 500, 990]),
        reward_scale=torch.ones(3, dtype=torch.float64),
        conditioning={name: value.double() for name, value in text.items()},
        label=torch.ones(3, dtype=torch.float64),
    )


def errors_by_hand(actors: WideActors, batch: PairBatch) -> dict[str, Tensor]:
    """m_w, m_l, r_w, r_l: mean |v - (eps - x_0)|^2 at x_s = (1 - s) x_0 + s eps, s = 3 u/(1 + 2 u) of u = (t + 1)/1000."""
    u = (batch.timesteps.double() + 1) / 1000
    s = 3 * u / (1 + 2 * u)
    over = s.reshape(-1, 1, 1, 1)
    clip = F.pad(batch.conditioning["clip_embeds"], (0, 4))
    text = torch.cat([clip, torch.zeros(3, 256, 24, dtype=torch.float64)], dim=1)
    found = {}
    for side, x_0 in (("w", batch.x_0_w), ("l", batch.x_0_l)):
        inputs = {
            "hidden_states": (1 - over) * x_0 + over * batch.eps,
            "timestep": (1000 * s).float(),
            "encoder_hidden_states": text,
            "pooled_projections": batch.conditioning["pooled"],
        }
        with torch.no_grad():
            policy = actors.denoiser(**inputs).sample
            actors.denoiser.disable_adapters()
            reference = actors.denoiser(**inputs).sample
            actors.denoiser.enable_adapters()
        for name, v in (("m", policy), ("r", reference)):
            found[f"{name}_{side}"] = (v - (batch.eps - x_0)).square().mean(dim=(1, 2, 3))
    return found


@pytest.mark.parametrize("flow_beta", ["constant", "one_minus_s_squared"])
def test_diffusion_dpos_loss_is_the_formula(
    flow_beta: str, actors: WideActors, batch: PairBatch, folders: Folders
) -> None:
    beta = torch.full((3,), 100.0, dtype=torch.float64)
    if flow_beta == "one_minus_s_squared":
        u = (batch.timesteps.double() + 1) / 1000
        beta = beta * (1 - 3 * u / (1 + 2 * u)).square()
    m_w, m_l, r_w, r_l = (errors_by_hand(actors, batch)[name] for name in ("m_w", "m_l", "r_w", "r_l"))
    expected = torch.log1p(torch.exp(0.5 * beta * ((m_w - m_l) - (r_w - r_l))))
    method = load(spec_of(folders, "diffusion_dpo", "frozen", "uniform"), folders).method
    assert isinstance(method, DiffusionDPO)
    method = replace(method, beta=100.0, in_eps_units=flow_beta == "one_minus_s_squared")
    found = method.loss(actors, batch).per_example
    # the scale is float32, as every factor of a float32 loss
    assert torch.allclose(found, expected, rtol=1e-9 if flow_beta == "constant" else 1e-6, atol=0)
    assert float((expected - 0.6931471806).abs().max()) > 1e-3


def test_mapos_loss_is_the_formula(actors: WideActors, batch: PairBatch, folders: Folders) -> None:
    errors = errors_by_hand(actors, batch)
    b_w, b_l = (0.5 * m / torch.expm1(0.5 * m) for m in (errors["m_w"], errors["m_l"]))
    expected = errors["m_w"] + 0.1 * torch.log1p(torch.exp(-1000 * (b_w - b_l)))
    method = load(spec_of(folders, "mapo", "frozen", "uniform"), folders).method
    assert isinstance(method, MaPO)
    found = method.loss(actors, batch).per_example
    assert torch.allclose(found, expected, rtol=1e-9, atol=0)


def test_the_log_probability_of_a_step_is_the_formula(actors: WideActors, batch: PairBatch) -> None:
    grid, at = actors.family.path.grid(4, 0.7), torch.tensor([0, 1, 2])
    x, z = batch.eps, normal(3, 16, 8, 8, seed=9)
    with torch.no_grad():
        v = actors.predict_policy(x, grid.time(at, x), batch.conditioning)
    low = 1000 * 3 * 0.001 / 1.002
    levels = [3 * u / (1 + 2 * u) for u in torch.linspace(1, low / 1000, 4, dtype=torch.float64).tolist()]
    expected = []
    for i in range(3):
        s, dt = levels[i], levels[i + 1] - levels[i]
        g2 = 0.49 * s / (1 - (s if i else levels[1]))
        mu = x[i] * (1 + g2 / (2 * s) * dt) + v[i] * (1 + g2 * (1 - s) / (2 * s)) * dt
        normal_at = torch.distributions.Normal(mu, (g2 * -dt) ** 0.5)
        expected.append(normal_at.log_prob(z[i]).mean())
    assert torch.allclose(log_prob(grid, z, x, v, at), torch.stack(expected), rtol=1e-9)


# --- whole runs ------------------------------------------------------------------------------------------------------


def save_lora(model: Path, folder: Path) -> Path:
    """A LoRA of the transformer and of a text encoder, as diffusers saves it."""
    pipeline = StableDiffusion3Pipeline.from_pretrained(model, text_encoder_3=None, tokenizer_3=None)
    layers: dict[str, dict[str, Tensor]] = {}
    for name in ("transformer", "text_encoder_2"):
        network = getattr(pipeline, name)
        targets = [one for one, layer in network.named_modules() if one.endswith(("to_q", "q_proj"))]
        layers[name] = {}
        for number, target in enumerate(targets):
            outputs, inputs = network.get_submodule(target).weight.shape
            layers[name][f"{target}.lora_A.weight"] = 0.3 * normal(2, inputs, seed=number).float()
            layers[name][f"{target}.lora_B.weight"] = 0.3 * normal(outputs, 2, seed=50 + number).float()
    StableDiffusion3Pipeline.save_lora_weights(
        folder, **{f"{name}_lora_layers": tensors for name, tensors in layers.items()}
    )
    return folder / "pytorch_lora_weights.safetensors"


@pytest.mark.parametrize(("kind", "starts"), [("lora", False), ("full", False), ("lora", True), ("full", True)])
def test_what_a_run_saves_opens_in_diffusers_and_draws_what_the_run_drew(
    kind: str, starts: bool, folders: Folders, tmp_path: Path
) -> None:
    start = {"lora": {"type": "local", "path": str(save_lora(folders.model, tmp_path))}, "mode": "merge"}
    spec = tiny_spec(
        folders.model,
        folders.pairs,
        adapter={"type": "lora", "rank": 2, "alpha": 6.0} if kind == "lora" else {"type": "full"},
        training={"steps": 2, "batch_size": 2, "gradient_accumulation_steps": 1, "learning_rate": 1e-2},
        **({"start": start} if starts else {}),
    )
    events = list(align(spec, tmp_path / "work", cache_dir=folders.cache))
    assert isinstance(events[-1], RunCompleted)
    saved = latest(tmp_path / "work" / "checkpoints")
    assert saved is not None
    model = saved / "pipeline" if kind == "full" else folders.model
    pipeline = StableDiffusion3Pipeline.from_pretrained(model, text_encoder_3=None, tokenizer_3=None)
    if kind == "lora":
        pipeline.load_lora_weights(saved, weight_name="pytorch_lora_weights.safetensors")
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.stack([torch.randn(16, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6)])
    loaded = pipeline(["a red circle"] * 2, latents=noise, num_inference_steps=2, guidance_scale=2.0, output_type="pt")
    run = load(spec.resolved("sd3"), folders)
    run.restore(saved)
    drawn = run.family.sample(
        run.actors.denoiser,
        ["a red circle"] * 2,
        [5, 6],
        num_inference_steps=2,
        guidance_scale=2.0,
        autocast=nullcontext,
    )
    assert torch.allclose(loaded.images, drawn, atol=2e-5)
