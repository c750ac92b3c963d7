"""FLUX.1: what the family says is what diffusers' own pipeline of the same folder says."""

import json
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.actors.build import full_actors, lora_actors
from alignment_core.actors.reference_weights import lora_layers
from alignment_core.errors import ModelError
from alignment_core.families.flux import Flux, load_flux, packed, unpacked
from alignment_core.families.source import ModelFolder
from alignment_core.spec.families import FAMILIES
from tests.alignment_core.tiny_flux import T5_TOKENS, save_tiny_flux

PROMPTS = ["a red circle", "a blue square a green circle a red square", "a red circle"]
TRANSFORMER, VAE, INDEX = "transformer/config.json", "vae/config.json", "model_index.json"
SCHEDULER, CLIP, T5 = "scheduler/scheduler_config.json", "text_encoder/config.json", "text_encoder_2/config.json"
MISSING = object()
KINDS = ("dev", "schnell")

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_tiny_flux(tmp_path_factory.mktemp("flux"), is_dev=kind == "dev") for kind in KINDS}


def load(folder: Path) -> Flux:
    dtype = torch.float32
    return load_flux(ModelFolder(folder, None), device=torch.device("cpu"), frozen_dtype=dtype, denoiser_dtype=dtype)


def of_diffusers(folder: Path) -> FluxPipeline:
    pipeline = FluxPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawn(family: Flux, scale: float, seeds: Sequence[int] = (1, 2, 3)) -> Tensor:
    return family.sample(
        family.denoiser, PROMPTS, seeds, num_inference_steps=3, guidance_scale=scale, autocast=nullcontext
    )


def drawn_by_diffusers(pipeline: FluxPipeline, scale: float, seeds: Sequence[int] = (1, 2, 3)) -> Tensor:
    noise = torch.stack([normal(16, 8, 8, seed=seed) for seed in seeds])
    return pipeline(
        PROMPTS,
        height=16,
        width=16,
        latents=FluxPipeline._pack_latents(noise, 3, 16, 8, 8),
        num_inference_steps=3,
        guidance_scale=scale,
        max_sequence_length=T5_TOKENS,
        output_type="pt",
    ).images


# --- the same as diffusers -------------------------------------------------------------------------------------------


def test_latents_are_packed_as_diffusers_packs_them() -> None:
    latents = normal(2, 3, 4, 6)
    tokens = packed(latents)
    assert torch.equal(tokens, FluxPipeline._pack_latents(latents, 2, 3, 4, 6))
    assert torch.equal(unpacked(tokens, 2, 3), latents)


def test_prompts_are_read_as_diffusers_reads_them(folders: dict[str, Path]) -> None:
    family, pipeline = load(folders["dev"]), of_diffusers(folders["dev"])
    found = family.encode_prompts(PROMPTS)
    text, pooled, _ = pipeline.encode_prompt(PROMPTS, PROMPTS, max_sequence_length=T5_TOKENS)
    assert torch.allclose(found["t5_embeds"], text, atol=1e-5)
    assert torch.allclose(found["pooled"], pooled, atol=1e-5)
    assert family.max_tokens == T5_TOKENS


@pytest.mark.parametrize(("kind", "scale"), [("dev", 1.0), ("dev", 3.5), ("schnell", 0.0)])
def test_images_are_those_of_diffusers_pipeline(kind: str, scale: float, folders: dict[str, Path]) -> None:
    expected = drawn_by_diffusers(of_diffusers(folders[kind]), scale)
    assert torch.allclose(drawn(load(folders[kind]), scale), expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_our_steps_without_noise_lead_where_diffusers_pipeline_leads(kind: str, folders: dict[str, Path]) -> None:
    family = load(folders[kind])
    text = family.with_guidance(family.encode_prompts(PROMPTS), 2.5)
    grid, x = family.path.grid(3, 0.0), torch.stack([normal(16, 8, 8, seed=seed) for seed in (1, 2, 3)])
    with torch.no_grad():
        for index in range(3):
            at = torch.full((3,), index)
            x = grid.mean(x, family.predict(family.denoiser, x, grid.time(at, x), text), at)
    expected = drawn_by_diffusers(of_diffusers(folders[kind]), 2.5)
    assert torch.allclose(family.decode(x), expected, atol=1e-5)


def test_one_step_without_noise_is_diffusers_own(folders: dict[str, Path]) -> None:
    family, scheduler = load(folders["dev"]), of_diffusers(folders["dev"]).scheduler
    mu = 0.5 + (1.15 - 0.5) * (16 - 256) / (4096 - 256)
    scheduler.set_timesteps(sigmas=[1.0, 0.8, 0.6, 0.4, 0.2], mu=mu)
    scheduler.set_begin_index(2)
    grid, at, x = family.path.grid(5, 0.0), torch.full((2,), 2), normal(2, 16, 8, 8)
    assert torch.allclose(grid.time(at, x), scheduler.timesteps[2].expand(2))
    velocity = normal(2, 16, 8, 8, seed=7)
    expected = scheduler.step(velocity, scheduler.timesteps[2], x, return_dict=False)[0]
    assert torch.allclose(grid.mean(x, velocity, at), expected, atol=1e-6)


def test_training_levels_are_diffusers_own(folders: dict[str, Path]) -> None:
    for kind in KINDS:  # highest first in diffusers
        expected = of_diffusers(folders[kind]).scheduler.sigmas.double()
        assert torch.allclose(load(folders[kind]).path.levels.flip(0), expected, atol=1e-6)


def test_latents_are_shifted_and_scaled_and_lead_back_to_the_image(folders: dict[str, Path]) -> None:
    family, vae = load(folders["dev"]), of_diffusers(folders["dev"]).vae
    pixels = normal(2, 3, 16, 16).clamp(-1, 1)
    posterior = vae.encode(pixels).latent_dist
    mean, std = family.encode_images(pixels)
    assert torch.allclose(mean, (posterior.mean - 0.06) * 1.5, atol=1e-6)
    assert torch.allclose(std, posterior.std * 1.5, atol=1e-6)
    expected = (vae.decode(posterior.mean).sample / 2 + 0.5).clamp(0, 1)
    assert torch.allclose(family.decode(mean), expected, atol=1e-5)


# --- guidance --------------------------------------------------------------------------------------------------------


def prediction(family: Flux, text: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return family.predict(family.denoiser, normal(3, 16, 8, 8), torch.full((3,), 500.0), text)


def test_dev_is_told_the_guidance_and_without_any_that_of_training(folders: dict[str, Path]) -> None:
    family = load(folders["dev"])
    text = family.encode_prompts(PROMPTS)
    at = {scale: prediction(family, family.with_guidance(text, scale)) for scale in (1.0, 3.5)}
    assert torch.equal(prediction(family, text), at[3.5])
    assert not torch.allclose(at[1.0], at[3.5], atol=1e-5)
    family.training_guidance = 1.0
    assert torch.equal(prediction(family, text), at[1.0])


def test_schnell_does_not_hear_of_guidance(folders: dict[str, Path]) -> None:
    family = load(folders["schnell"])
    text = family.encode_prompts(PROMPTS)
    assert family.with_guidance(text, 7.0) is text
    assert torch.equal(drawn(family, 0.0), drawn(family, 7.0))


# --- text encoders that leave ----------------------------------------------------------------------------------------


def test_released_encoders_read_the_same_and_a_prompt_once(folders: dict[str, Path]) -> None:
    family, other = load(folders["dev"]), load(folders["dev"])
    reads: list[object] = []
    other.t5.register_forward_hook(lambda *_: reads.append(None))
    other.release_encoders()
    before, again = family.encode_prompts(PROMPTS), other.encode_prompts(PROMPTS)
    assert all(torch.equal(before[name], again[name]) for name in before)
    other.encode_prompts(PROMPTS[:1])
    assert len(reads) == len(set(PROMPTS))


# --- what is trained -------------------------------------------------------------------------------------------------


def with_lora(family: Flux, seed: int = 0) -> Actors:
    """A LoRA on the layers of diffusers' script, with an effect."""
    targets = FAMILIES["flux"].lora_targets
    actors = lora_actors(
        family, family.denoiser, rank=2, alpha=4.0, target_modules=targets, seed=seed, autocast=nullcontext
    )
    with torch.no_grad():
        for number, (name, parameter) in enumerate(actors.trainable().items()):
            if ".lora_B." in name:
                parameter.copy_(0.3 * normal(*parameter.shape, seed=number))
    return actors


@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_opens_in_diffusers_with_the_same_images(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    family = load(folders[kind])
    plain = drawn(family, 2.0)
    family.save_policy(with_lora(family), tmp_path)
    pipeline = of_diffusers(folders[kind])
    pipeline.load_lora_weights(tmp_path, weight_name="pytorch_lora_weights.safetensors")
    loaded = drawn_by_diffusers(pipeline, 2.0)
    assert torch.allclose(loaded, drawn(family, 2.0), atol=1e-5)
    assert not torch.allclose(loaded, plain, atol=1e-3)


def test_every_layer_of_diffusers_script_is_adapted(folders: dict[str, Path]) -> None:
    adapted = set(lora_layers(with_lora(load(folders["dev"])).denoiser))
    attention = {"to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"}
    feed_forward = {f"{name}.net.{place}" for name in ("ff", "ff_context") for place in ("0.proj", "2")}
    double = {f"transformer_blocks.0.{name}" for name in {f"attn.{one}" for one in attention} | feed_forward}
    assert adapted == double | {f"single_transformer_blocks.0.attn.{name}" for name in ("to_q", "to_k", "to_v")}


def test_a_saved_lora_comes_back_exactly(folders: dict[str, Path], tmp_path: Path) -> None:
    first, second = load(folders["dev"]), load(folders["dev"])
    actors = with_lora(first)
    first.save_policy(actors, tmp_path)
    other = with_lora(second, seed=5)
    second.load_policy(other, tmp_path)
    for name, parameter in actors.trainable().items():
        assert torch.equal(parameter, other.trainable()[name])


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_fine_tune_is_a_whole_folder(kind: str, folders: dict[str, Path], tmp_path: Path) -> None:
    family = load(folders[kind])
    actors = full_actors(family, family.denoiser, autocast=nullcontext)
    with torch.no_grad():
        for number, parameter in enumerate(actors.trainable().values()):
            parameter.add_(0.05 * normal(*parameter.shape, seed=number))
    family.save_policy(actors, tmp_path)
    saved = load(tmp_path / "pipeline")
    assert torch.equal(drawn(saved, 2.0), drawn(family, 2.0))
    assert "_name_or_path" not in (tmp_path / "pipeline" / TRANSFORMER).read_text()
    of_diffusers(tmp_path / "pipeline")
    again = load(folders[kind])
    other = full_actors(again, again.denoiser, autocast=nullcontext)
    again.load_policy(other, tmp_path)
    assert all(torch.equal(p, other.trainable()[name]) for name, p in actors.trainable().items())


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (TRANSFORMER, {"in_channels": 16}, r"transformer/config\.json: in_channels is 16; expected 64, 4 x the latent"),
        (TRANSFORMER, {"out_channels": 16}, r"out_channels is 16; expected 64"),
        (TRANSFORMER, {"in_channels": MISSING}, r"in_channels is missing"),
        (TRANSFORMER, {"patch_size": 2}, r"patch_size is 2; expected 1"),
        (TRANSFORMER, {"joint_attention_dim": 32}, r"joint_attention_dim is 32; expected 12, the d_model of"),
        (TRANSFORMER, {"guidance_embeds": MISSING}, r"guidance_embeds is missing"),
        (TRANSFORMER, {"guidance_embeds": "yes"}, r"guidance_embeds is 'yes'; expected true or false"),
        (TRANSFORMER, {"guidance_embeds": False}, r"transformer: the weight .*guidance_embedder.* is not part of the"),
        (TRANSFORMER, {"axes_dims_rope": MISSING}, r"axes_dims_rope is \[16, 56, 56\]; expected .* the sum 8"),
        (TRANSFORMER, {"axes_dims_rope": [2, 3, 3]}, r"axes_dims_rope is \[2, 3, 3\]; expected three even numbers"),
        (VAE, {"shift_factor": None}, r"vae/config\.json: shift_factor is None; expected a number"),
        (VAE, {"scaling_factor": 0}, r"scaling_factor is 0; expected a number above 0"),
        (VAE, {"latents_mean": [0.0] * 16}, r"latents_mean is set"),
        (VAE, {"sample_size": 18}, r"sample_size is 18; expected a multiple of 4"),
        (VAE, {"latent_channels": 4}, r"in_channels is 64; expected 16, 4 x the latent_channels"),
        (CLIP, {"hidden_size": 12}, r"pooled_projection_dim is 10; expected 12, the hidden_size of"),
        (T5, {"d_model": 16}, r"joint_attention_dim is 12; expected 16, the d_model of"),
        (SCHEDULER, {"shift": MISSING}, r"scheduler_config\.json: shift is missing"),
        (SCHEDULER, {"use_dynamic_shifting": MISSING}, r"use_dynamic_shifting is missing"),
        (SCHEDULER, {"max_shift": MISSING}, r"max_shift is missing"),
        (SCHEDULER, {"max_image_seq_len": 100}, r"max_image_seq_len is 100; expected more than base_image_seq_len"),
        (SCHEDULER, {"time_shift_type": "linear"}, r"time_shift_type is 'linear'; expected 'exponential'"),
        (SCHEDULER, {"use_karras_sigmas": True}, r"use_karras_sigmas is True; expected levels with a fixed shift or"),
        (INDEX, {"text_encoder_2": ["transformers", "CLIPTextModel"]}, r"text_encoder_2 is 'CLIPTextModel'; expected"),
        (INDEX, {"tokenizer_2": MISSING}, r"tokenizer_2 is missing"),
    ],
)
def test_parts_that_do_not_fit_are_told_by_the_key(
    file: str, changes: dict[str, Any], message: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    model = shutil.copytree(folders["dev"], tmp_path / "model")
    values = json.loads((model / file).read_text()) | changes
    (model / file).write_text(json.dumps({key: value for key, value in values.items() if value is not MISSING}))
    with pytest.raises(ModelError, match=message):
        load(model)


def test_a_resolution_that_cannot_be_packed_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="18 pixels: the model draws multiples of 4"):
        load(folders["dev"]).encode_images(torch.zeros(1, 3, 18, 18))
