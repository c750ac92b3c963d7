"""SDXL: what the U-Net is told, and that what it says is used, as diffusers' own pipeline does."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline
from torch import Tensor

from alignment_core.errors import ModelError
from alignment_core.families.sdxl import StableDiffusionXL, load_sdxl
from alignment_core.families.source import ModelFolder
from alignment_core.load.model import load_model
from alignment_core.load.timesteps import build_timesteps
from alignment_core.rollouts.rollout import guided, walk
from alignment_core.spec import LocalSource
from alignment_core.spec.timesteps import TimestepAware
from tests.alignment_core.families.test_model_parts import rewrite
from tests.alignment_core.tiny_sdxl import save_tiny_sdxl

PROMPTS = ["a red circle", "blue square square square square square square square"]


def load(folder: Path) -> StableDiffusionXL:
    cpu, dtype = torch.device("cpu"), torch.float32
    return load_sdxl(ModelFolder(folder, None), device=cpu, frozen_dtype=dtype, denoiser_dtype=dtype)


def diffusers_pipeline(folder: Path) -> Any:
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, use_safetensors=True, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("force_zeros", [True, False])
def test_prompts_are_encoded_as_diffusers_encodes_them(force_zeros: bool, tmp_path: Path) -> None:
    model = save_tiny_sdxl(tmp_path, force_zeros=force_zeros)
    family = load(model)
    with torch.no_grad():
        told, empty, pooled, empty_pooled = diffusers_pipeline(model).encode_prompt(PROMPTS)
    ours, nothing = family.encode_prompts(PROMPTS), family.encode_prompts(["", ""])
    assert torch.equal(ours["prompt_embeds"], told)
    assert torch.equal(ours["pooled_prompt_embeds"], pooled)
    assert torch.equal(nothing["prompt_embeds"], empty)
    assert torch.equal(nothing["pooled_prompt_embeds"], empty_pooled)
    assert bool(empty.any()) != force_zeros


def test_images_are_encoded_and_decoded_by_the_vae_scaled(tiny_sdxl: Path) -> None:
    family, vae = load(tiny_sdxl), diffusers_pipeline(tiny_sdxl).vae
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    mean, std = family.encode_images(pixels)
    with torch.no_grad():
        posterior = vae.encode(pixels).latent_dist
        decoded = vae.decode(mean / 0.5).sample
    assert torch.equal(mean, posterior.mean * 0.5)
    assert torch.equal(std, posterior.std * 0.5)
    assert torch.allclose(family.decode(mean), (decoded / 2 + 0.5).clamp(0, 1))


def test_the_vae_stays_float32_whatever_the_precision(tiny_sdxl: Path) -> None:
    half = torch.bfloat16
    family = load_model(
        LocalSource(path=str(tiny_sdxl)), device=torch.device("cpu"), frozen_dtype=half, denoiser_dtype=half
    )
    assert family.vae.dtype is torch.float32
    assert isinstance(family, StableDiffusionXL)
    assert family.text_encoder_2.dtype is half


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_images_are_those_of_diffusers_pipeline(tiny_sdxl: Path, guidance_scale: float) -> None:
    family = load(tiny_sdxl)
    ours = family.sample(
        family.denoiser, PROMPTS, [3, 4], num_inference_steps=4, guidance_scale=guidance_scale, autocast=nullcontext
    )
    noise = torch.stack([torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4)])
    theirs = diffusers_pipeline(tiny_sdxl)(
        prompt=PROMPTS, latents=noise, num_inference_steps=4, guidance_scale=guidance_scale, output_type="pt"
    ).images
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "zero_terminal_snr"])
def test_each_step_of_a_rollout_is_that_of_diffusers_sampler(kind: str, eta: float, tmp_path: Path) -> None:
    options: Any = {"prediction_type": "epsilon" if kind == "epsilon" else "v_prediction"}
    model = save_tiny_sdxl(tmp_path, **options, zero_terminal_snr=kind == "zero_terminal_snr")
    start, states = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)), []

    def keep(_pipeline: Any, _step: int, _t: Any, told: dict[str, Tensor]) -> dict[str, Tensor]:
        states.append(told["latents"].clone())
        return told

    diffusers_pipeline(model)(
        prompt=PROMPTS,
        latents=start,
        num_inference_steps=4,
        guidance_scale=3.0,
        eta=eta,
        generator=torch.Generator().manual_seed(2),
        callback_on_step_end=keep,
        output_type="latent",
    )
    family, noise = load(model), torch.Generator().manual_seed(2)
    told, empty = family.sampling_conditioning(PROMPTS), family.sampling_conditioning([""])
    grid = family.path.grid(4, eta)

    def predict(x_t: Tensor, t: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
        return family.predict(family.denoiser, x_t, t, conditioning)

    drawn = walk(
        grid,
        lambda x_t, t: guided(predict, x_t, t, told, empty, 3.0),
        start,
        lambda _index: torch.randn(2, 4, 8, 8, generator=noise),
        first=0,
        last=4,
    )
    for ours, theirs in zip(drawn.states, states, strict=True):
        assert torch.allclose(ours, theirs, atol=2e-4)


def test_the_image_is_told_by_its_file_its_crop_and_its_size(tiny_sdxl: Path) -> None:
    told = load(tiny_sdxl).image_conditioning(torch.tensor([[1023.0, 768.0, 0.0, 31.0]]), 512)
    assert told["time_ids"].tolist() == [[1023, 768, 0, 31, 512, 512]]


def test_the_prediction_depends_on_everything_that_the_unet_is_told(tiny_sdxl: Path) -> None:
    family = load(tiny_sdxl)
    x_t, t = torch.randn(1, 4, 8, 8), torch.tensor([500])
    told = family.sampling_conditioning(["a red circle"])
    other = {**family.sampling_conditioning(["a blue square"]), **family.image_conditioning(torch.ones(1, 4), 8)}
    with torch.no_grad():
        plain = family.predict(family.denoiser, x_t, t, told)
        for name in told:
            changed = family.predict(family.denoiser, x_t, t, {**told, name: other[name]})
            assert not torch.equal(plain, changed), name


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("unet/config.json", {"addition_embed_type": "image"}, r"addition_embed_type is 'image'; expected 'text_time'"),
        ("unet/config.json", {"projection_class_embeddings_input_dim": 32}, r"is 32; expected 36: 6 sizes"),
        ("unet/config.json", {"in_channels": 9}, r"in_channels is 9; expected 4, the latent_channels"),
        (
            "unet/config.json",
            {"cross_attention_dim": 16},
            r"cross_attention_dim is 16; expected 24, the hidden_size of",
        ),
        ("unet/config.json", {"time_cond_proj_dim": 8}, r"time_cond_proj_dim is 8; the U-Net wants an input that SDXL"),
        ("vae/config.json", {"latents_mean": [0.0] * 4}, r"latents_mean is"),
        ("model_index.json", {"text_encoder_2": [None, None]}, r"text_encoder_2 is None; expected CLIPTextModelWith"),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_the_key(
    file: str, change: dict[str, Any], told: str, tmp_path: Path
) -> None:
    model = save_tiny_sdxl(tmp_path)
    rewrite(model, file, **change)
    with pytest.raises(ModelError, match=told):
        load(model)


@pytest.mark.parametrize(
    ("num_bins", "wanted", "expected"),
    [(5, {4: 1.0}, set(range(200))), (1000, dict.fromkeys((0, 250, 500, 750), 0.25), {999, 749, 499, 249})],
)
def test_a_table_draws_the_timesteps_of_the_refiner_and_of_turbo(
    num_bins: int, wanted: dict[int, float], expected: set[int], tiny_sdxl: Path
) -> None:
    table = {"type": "table", "probabilities": [wanted.get(number, 0.0) for number in range(num_bins)]}
    spec = TimestepAware.model_validate({"num_bins": num_bins, "sampler": table})
    strategy = build_timesteps(spec, load(tiny_sdxl).path, None)
    drawn = strategy.sample(4000, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == expected


def test_the_schedule_is_that_of_the_folder(tmp_path: Path) -> None:
    model = save_tiny_sdxl(tmp_path, prediction_type="v_prediction", zero_terminal_snr=True)
    family, theirs = load(model), DDIMScheduler.from_pretrained(model / "scheduler")
    assert torch.equal(family.path.abar, theirs.alphas_cumprod)
    assert family.path.abar[-1] == 0
    assert family.path.sampling_timesteps(4)[0] == 999
