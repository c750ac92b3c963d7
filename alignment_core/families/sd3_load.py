"""The parts of a Stable Diffusion 3 folder as modules, whole."""

from typing import Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from alignment_core.families.flow_schedule import read_flow_schedule
from alignment_core.families.pretrained import (
    check_vocabularies,
    in_wide_half,
    load_denoiser,
    load_encoder,
    load_part,
    load_tokenizer,
    reading,
)
from alignment_core.families.sd3_configs import check_sd3, has_t5
from alignment_core.families.source import ModelFolder

TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


def load_sd3_pipeline(
    folder: ModelFolder, *, frozen_dtype: torch.dtype, denoiser_dtype: torch.dtype
) -> StableDiffusion3Pipeline:
    """The pipeline of a folder whose parts fit, on the CPU; raises `ModelError` that names the file, and the key or weight."""
    check_sd3(folder)
    scheduler = read_flow_schedule(folder)
    with reading(folder):
        pipeline = sd3_pipeline_of(
            vae=load_part(folder, "vae", AutoencoderKL, torch.float32),
            text_encoder=load_encoder(folder, "text_encoder", CLIPTextModelWithProjection, frozen_dtype),
            tokenizer=load_tokenizer(folder, "tokenizer", CLIPTokenizer),
            text_encoder_2=load_encoder(folder, "text_encoder_2", CLIPTextModelWithProjection, frozen_dtype),
            tokenizer_2=load_tokenizer(folder, "tokenizer_2", CLIPTokenizer),
            text_encoder_3=load_encoder(folder, "text_encoder_3", T5EncoderModel, in_wide_half(frozen_dtype))
            if has_t5(folder)
            else None,
            tokenizer_3=load_tokenizer(folder, "tokenizer_3", T5Tokenizer) if has_t5(folder) else None,
            transformer=load_denoiser(folder, "transformer", SD3Transformer2DModel, denoiser_dtype),
            scheduler=scheduler,
        )
    check_vocabularies(folder, pipeline, TEXT_ENCODERS)
    return pipeline


def sd3_pipeline_of(**parts: Any) -> StableDiffusion3Pipeline:
    """The diffusers pipeline of these parts, without a progress bar."""
    pipeline = StableDiffusion3Pipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
