"""Stable Diffusion 3: what the family says is what diffusers' own pipeline of the same folder says."""

import json
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.actors.build import full_actors, lora_actors
from alignment_core.actors.reference_weights import lora_layers
from alignment_core.errors import ModelError
from alignment_core.families.sd3 import StableDiffusion3, load_sd3
from alignment_core.families.source import ModelFolder
from alignment_core.spec.families import FAMILIES
from tests.alignment_core.tiny_sd3 import save_tiny_sd3

PROMPTS = ["a red circle", "a blue square a green circle a red square", "a red circle"]
TRANSFORMER, VAE, INDEX = "transformer/config.json", "vae/config.json", "model_index.json"
SCHEDULER, TEXT = "scheduler/scheduler_config.json", "text_encoder/config.json"
MISSING = object()

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """By whether there is a T5."""
    return {t5: save_tiny_sd3(tmp_path_factory.mktemp("sd3"), with_t5=t5) for t5 in (False, True)}


def load(folder: Path) -> StableDiffusion3:
    dtype = torch.float32
    return load_sd3(ModelFolder(folder, None), device=torch.device("cpu"), frozen_dtype=dtype, denoiser_dtype=dtype)


def of_diffusers(folder: Path) -> StableDiffusion3Pipeline:
    has_t5 = (folder / "text_encoder_3").exists()
    left_out = {} if has_t5 else {"text_encoder_3": None, "tokenizer_3": None}
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, local_files_only=True, **left_out)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawn(family: StableDiffusion3, scale: float, seeds: Sequence[int] = (1, 2, 3)) -> Tensor:
    return family.sample(
        family.denoiser, PROMPTS, seeds, num_inference_steps=3, guidance_scale=scale, autocast=nullcontext
    )


# --- the same as diffusers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_t5", [False, True])
def test_prompts_are_read_as_diffusers_reads_them(with_t5: bool, folders: dict[bool, Path]) -> None:
    family, pipeline = load(folders[with_t5]), of_diffusers(folders[with_t5])
    found = family.encode_prompts(PROMPTS)
    text, empty, pooled, no_pooled = pipeline.encode_prompt(PROMPTS, PROMPTS, PROMPTS)
    assert ("t5_embeds" in found) == with_t5
    assert torch.allclose(family._joined_text(found), text, atol=1e-5)
    assert torch.allclose(found["pooled"], pooled, atol=1e-5)
    nothing = family.encode_empty()
    assert torch.allclose(family._joined_text(nothing), empty[:1], atol=1e-5)
    assert torch.allclose(nothing["pooled"], no_pooled[:1], atol=1e-5)


@pytest.mark.parametrize(("with_t5", "scale"), [(False, 1.0), (False, 4.0), (True, 4.0)])
def test_images_are_those_of_diffusers_pipeline(with_t5: bool, scale: float, folders: dict[bool, Path]) -> None:
    family = load(folders[with_t5])
    noise = torch.stack([normal(*family.latent_shape(16), seed=seed) for seed in (1, 2, 3)])
    expected = of_diffusers(folders[with_t5])(
        PROMPTS, latents=noise, num_inference_steps=3, guidance_scale=scale, output_type="pt"
    ).images
    assert torch.allclose(drawn(family, scale), expected, atol=1e-5)


def test_one_step_without_noise_is_diffusers_own(folders: dict[bool, Path]) -> None:
    family, scheduler = load(folders[False]), of_diffusers(folders[False]).scheduler
    scheduler.set_timesteps(5)
    scheduler.set_begin_index(2)
    grid, at, x = family.path.grid(5, 0.0), torch.full((2,), 2), normal(2, 16, 8, 8)
    text = family.encode_prompts(PROMPTS[:2])
    velocity = family.predict(family.denoiser, x, grid.time(at, x), text)
    expected = scheduler.step(velocity, scheduler.timesteps[2], x, return_dict=False)[0]
    assert torch.allclose(grid.mean(x, velocity, at), expected, atol=1e-6)


def test_latents_are_shifted_and_scaled_and_lead_back_to_the_image(folders: dict[bool, Path]) -> None:
    family, vae = load(folders[False]), of_diffusers(folders[False]).vae
    pixels = normal(2, 3, 16, 16).clamp(-1, 1)
    posterior = vae.encode(pixels).latent_dist
    mean, std = family.encode_images(pixels)
    assert torch.allclose(mean, (posterior.mean - 0.06) * 1.5, atol=1e-6)
    assert torch.allclose(std, posterior.std * 1.5, atol=1e-6)
    expected = (vae.decode(posterior.mean).sample / 2 + 0.5).clamp(0, 1)
    assert torch.allclose(family.decode(mean), expected, atol=1e-5)


def test_a_t5_stays_on_the_cpu_and_reads_a_prompt_once(folders: dict[bool, Path]) -> None:
    family = load(folders[True])
    assert family.t5 is not None
    reads: list[object] = []
    family.t5.register_forward_hook(lambda *_: reads.append(None))
    first = family.encode_prompts(PROMPTS)["t5_embeds"]
    assert torch.equal(family.encode_prompts(PROMPTS[:1])["t5_embeds"][0], first[0])
    assert len(reads) == len(set(PROMPTS))


def test_prompts_are_as_long_as_the_encoder_that_reads_furthest(folders: dict[bool, Path]) -> None:
    assert [load(folders[t5]).max_tokens for t5 in (False, True)] == [8, 256]


# --- what is trained -------------------------------------------------------------------------------------------------


def with_lora(family: StableDiffusion3, seed: int = 0) -> Actors:
    """A LoRA on the layers of diffusers' script, with an effect."""
    targets = FAMILIES["sd3"].lora_targets
    actors = lora_actors(
        family, family.denoiser, rank=2, alpha=4.0, target_modules=targets, seed=seed, autocast=nullcontext
    )
    with torch.no_grad():
        for number, (name, parameter) in enumerate(actors.trainable().items()):
            if ".lora_B." in name:
                parameter.copy_(0.3 * normal(*parameter.shape, seed=number))
    return actors


def test_a_lora_opens_in_diffusers_with_the_same_images(folders: dict[bool, Path], tmp_path: Path) -> None:
    family = load(folders[False])
    plain = drawn(family, 2.0)
    family.save_policy(with_lora(family), tmp_path)
    pipeline = of_diffusers(folders[False])
    pipeline.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    noise = torch.stack([normal(*family.latent_shape(16), seed=seed) for seed in (1, 2, 3)])
    loaded = pipeline(PROMPTS, latents=noise, num_inference_steps=3, guidance_scale=2.0, output_type="pt").images
    assert torch.allclose(loaded, drawn(family, 2.0), atol=1e-5)
    assert not torch.allclose(loaded, plain, atol=1e-3)


def test_every_layer_of_diffusers_script_is_adapted(folders: dict[bool, Path]) -> None:
    adapted = tuple(lora_layers(with_lora(load(folders[False])).denoiser))
    assert {"transformer_blocks.0.attn.to_add_out", "transformer_blocks.0.attn2.to_q"} <= set(adapted)
    assert {name.rpartition(".attn")[2].partition(".")[2] for name in adapted} == set(FAMILIES["sd3"].lora_targets)


def test_a_saved_lora_comes_back_exactly(folders: dict[bool, Path], tmp_path: Path) -> None:
    first, second = load(folders[False]), load(folders[False])
    actors = with_lora(first)
    first.save_policy(actors, tmp_path)
    other = with_lora(second, seed=5)
    second.load_policy(other, tmp_path)
    for name, parameter in actors.trainable().items():
        assert torch.equal(parameter, other.trainable()[name])


@pytest.mark.parametrize("with_t5", [False, True])
def test_a_full_fine_tune_is_a_whole_folder(with_t5: bool, folders: dict[bool, Path], tmp_path: Path) -> None:
    family = load(folders[with_t5])
    actors = full_actors(family, family.denoiser, autocast=nullcontext)
    with torch.no_grad():
        for number, parameter in enumerate(actors.trainable().values()):
            parameter.add_(0.05 * normal(*parameter.shape, seed=number))
    family.save_policy(actors, tmp_path)
    saved = load(tmp_path / "pipeline")
    assert torch.equal(drawn(saved, 2.0), drawn(family, 2.0))
    assert "_name_or_path" not in (tmp_path / "pipeline" / TRANSFORMER).read_text()
    of_diffusers(tmp_path / "pipeline")
    again = load(folders[with_t5])
    other = full_actors(again, again.denoiser, autocast=nullcontext)
    again.load_policy(other, tmp_path)
    assert all(torch.equal(p, other.trainable()[name]) for name, p in actors.trainable().items())


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            TRANSFORMER,
            {"in_channels": 4},
            r"transformer/config\.json: in_channels is 4; expected 16, the latent_channels",
        ),
        (TRANSFORMER, {"out_channels": MISSING}, r"out_channels is missing"),
        (TRANSFORMER, {"joint_attention_dim": 19}, r"joint_attention_dim is 19; expected at least 20, the hidden_size"),
        (TRANSFORMER, {"joint_attention_dim": 32}, r"joint_attention_dim is 32; expected 24, the d_model of"),
        (
            TRANSFORMER,
            {"pooled_projection_dim": 8},
            r"pooled_projection_dim is 8; expected 20, the projection_dim of both",
        ),
        (TRANSFORMER, {"caption_projection_dim": 8}, r"caption_projection_dim is 8; expected 16"),
        (TRANSFORMER, {"sample_size": 7}, r"sample_size is 7, and patch_size 2 does not divide it"),
        (TRANSFORMER, {"pos_embed_max_size": 3}, r"pos_embed_max_size is 3; expected at least 4"),
        (TRANSFORMER, {"qk_norm": None}, r"transformer: the weight .*norm_added_k.* is not part of the model"),
        (VAE, {"shift_factor": None}, r"vae/config\.json: shift_factor is None; expected a number"),
        (VAE, {"shift_factor": MISSING}, r"shift_factor is missing"),
        (VAE, {"scaling_factor": 0}, r"scaling_factor is 0; expected a number above 0"),
        (VAE, {"latents_mean": [0.0] * 16}, r"latents_mean is set"),
        (TEXT, {"projection_dim": 9}, r"pooled_projection_dim is 20; expected 21"),
        (SCHEDULER, {"shift": MISSING}, r"scheduler_config\.json: shift is missing"),
        (SCHEDULER, {"shift": -1}, r"shift is -1; expected a number above 0"),
        (SCHEDULER, {"_class_name": "DDIMScheduler"}, r"expected FlowMatchEulerDiscreteScheduler"),
        (
            SCHEDULER,
            {"use_dynamic_shifting": True},
            r"use_dynamic_shifting is True; expected levels with a fixed shift",
        ),
        (INDEX, {"text_encoder": ["transformers", "CLIPTextModel"]}, r"text_encoder is 'CLIPTextModel'; expected"),
        (INDEX, {"tokenizer_3": [None, None]}, r"tokenizer_3 is None; expected T5Tokenizer"),
        (INDEX, {"text_encoder_3": MISSING}, r"text_encoder_3 is missing"),
    ],
)
def test_parts_that_do_not_fit_are_told_by_the_key(
    file: str, changes: dict[str, Any], message: str, folders: dict[bool, Path], tmp_path: Path
) -> None:
    model = shutil.copytree(folders[True], tmp_path / "model")
    values = json.loads((model / file).read_text()) | changes
    (model / file).write_text(json.dumps({key: value for key, value in values.items() if value is not MISSING}))
    with pytest.raises(ModelError, match=message):
        load(model)


def test_a_resolution_without_whole_patches_is_refused(folders: dict[bool, Path]) -> None:
    with pytest.raises(ModelError, match="18 pixels: the model draws multiples of 4"):
        load(folders[False]).encode_images(torch.zeros(1, 3, 18, 18))
