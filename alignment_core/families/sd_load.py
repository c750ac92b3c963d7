"""The parts of a Stable Diffusion 1.x or 2.x folder as modules, whole."""

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from alignment_core.families.pretrained import (
    check_vocabularies,
    load_denoiser,
    load_encoder,
    load_part,
    load_tokenizer,
    reading,
)
from alignment_core.families.sd_configs import check_parts
from alignment_core.families.sd_schedule import read_schedule
from alignment_core.families.source import ModelFolder


def load_pipeline(
    folder: ModelFolder, *, frozen_dtype: torch.dtype, denoiser_dtype: torch.dtype
) -> StableDiffusionPipeline:
    """The pipeline of a folder whose parts fit; raises `ModelError` that names the file, and the key or weight."""
    check_parts(folder)
    scheduler = read_schedule(folder)
    with reading(folder):
        text_encoder = load_encoder(folder, "text_encoder", CLIPTextModel, frozen_dtype)
        tokenizer = load_tokenizer(folder, "tokenizer", CLIPTokenizer)
        vae = load_part(folder, "vae", AutoencoderKL, torch.float32)
        unet = load_denoiser(folder, "unet", UNet2DConditionModel, denoiser_dtype)
    pipeline = pipeline_of(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, denoiser=unet, scheduler=scheduler)
    check_vocabularies(folder, pipeline, ("text_encoder",))
    return pipeline


def pipeline_of(
    *,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    denoiser: UNet2DConditionModel,
    scheduler: DDIMScheduler,
) -> StableDiffusionPipeline:
    """The diffusers pipeline of these parts, with this very scheduler."""
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=denoiser,
        # The constructor writes 1 over any other steps_offset; the folder's scheduler comes after it.
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),  # pyright: ignore[reportArgumentType]
        safety_checker=None,  # pyright: ignore[reportArgumentType]
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )
    pipeline.register_modules(scheduler=scheduler)
    return pipeline
