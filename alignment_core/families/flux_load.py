"""The parts of a FLUX.1 folder as modules, whole."""

from typing import Any

import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from alignment_core.families.flow_schedule import read_flow_schedule
from alignment_core.families.flux_configs import check_flux
from alignment_core.families.pretrained import (
    check_vocabularies,
    in_wide_half,
    load_denoiser,
    load_encoder,
    load_part,
    load_tokenizer,
    reading,
)
from alignment_core.families.source import ModelFolder

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")


def load_flux_pipeline(folder: ModelFolder, *, frozen_dtype: torch.dtype, denoiser_dtype: torch.dtype) -> FluxPipeline:
    """The pipeline of a folder whose parts fit, on the CPU; raises `ModelError` that names the file, and the key or weight."""
    check_flux(folder)
    scheduler = read_flow_schedule(folder, may_be_dynamic=True)
    with reading(folder):
        pipeline = flux_pipeline_of(
            vae=load_part(folder, "vae", AutoencoderKL, torch.float32),
            text_encoder=load_encoder(folder, "text_encoder", CLIPTextModel, frozen_dtype),
            tokenizer=load_tokenizer(folder, "tokenizer", CLIPTokenizer),
            text_encoder_2=load_encoder(folder, "text_encoder_2", T5EncoderModel, in_wide_half(frozen_dtype)),
            tokenizer_2=load_tokenizer(folder, "tokenizer_2", T5Tokenizer),
            transformer=load_denoiser(folder, "transformer", FluxTransformer2DModel, denoiser_dtype),
            scheduler=scheduler,
        )
    check_vocabularies(folder, pipeline, TEXT_ENCODERS)
    return pipeline


def flux_pipeline_of(**parts: Any) -> FluxPipeline:
    """The diffusers pipeline of these parts, without a progress bar."""
    pipeline = FluxPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
