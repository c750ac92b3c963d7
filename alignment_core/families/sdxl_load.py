"""The parts of a Stable Diffusion XL folder as modules, whole."""

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from alignment_core.families.pretrained import (
    check_vocabularies,
    load_denoiser,
    load_encoder,
    load_part,
    load_tokenizer,
    reading,
)
from alignment_core.families.sd_schedule import read_schedule
from alignment_core.families.sdxl_configs import check_xl_parts
from alignment_core.families.source import ModelFolder, read_json

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")


def load_xl_pipeline(
    folder: ModelFolder, *, frozen_dtype: torch.dtype, denoiser_dtype: torch.dtype
) -> StableDiffusionXLPipeline:
    """The pipeline of a folder whose parts fit, on the CPU; raises `ModelError` that names the file, and the key or weight."""
    check_xl_parts(folder)
    scheduler = read_schedule(folder)
    with reading(folder):
        text_encoder = load_encoder(folder, "text_encoder", CLIPTextModel, frozen_dtype)
        text_encoder_2 = load_encoder(folder, "text_encoder_2", CLIPTextModelWithProjection, frozen_dtype)
        tokenizers = [load_tokenizer(folder, name, CLIPTokenizer) for name in ("tokenizer", "tokenizer_2")]
        vae = load_part(folder, "vae", AutoencoderKL, torch.float32)
        unet = load_denoiser(folder, "unet", UNet2DConditionModel, denoiser_dtype)
    zeros = read_json(folder.path / "model_index.json").get("force_zeros_for_empty_prompt", True)
    pipeline = xl_pipeline_of(
        vae=vae,
        text_encoders=(text_encoder, text_encoder_2),
        tokenizers=(tokenizers[0], tokenizers[1]),
        denoiser=unet,
        scheduler=scheduler,
        empty_is_zeros=bool(zeros),
    )
    check_vocabularies(folder, pipeline, TEXT_ENCODERS)
    return pipeline


def xl_pipeline_of(
    *,
    vae: AutoencoderKL,
    text_encoders: tuple[CLIPTextModel, CLIPTextModelWithProjection],
    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer],
    denoiser: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    empty_is_zeros: bool,
) -> StableDiffusionXLPipeline:
    """The diffusers pipeline of these parts."""
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text_encoders[0],
        text_encoder_2=text_encoders[1],
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=denoiser,
        scheduler=scheduler,  # pyright: ignore[reportArgumentType]
        force_zeros_for_empty_prompt=empty_is_zeros,
        add_watermarker=False,
    )
