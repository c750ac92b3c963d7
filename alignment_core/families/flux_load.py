"""The parts of a FLUX.1 folder as modules, whole."""

from typing import Any

import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from alignment_core.errors import ModelError
from alignment_core.families.flow_schedule import read_flow_schedule
from alignment_core.families.flux_configs import check_flux
from alignment_core.families.pretrained import in_wide_half, load_tokenizer
from alignment_core.families.sd_configs import check_vocabulary
from alignment_core.families.sd_load import load_encoder, load_part
from alignment_core.families.source import ModelFolder
from alignment_core.quiet import only_errors


def load_flux_pipeline(folder: ModelFolder, *, frozen_dtype: torch.dtype, denoiser_dtype: torch.dtype) -> FluxPipeline:
    """The pipeline of a folder whose parts fit, on the CPU; raises `ModelError` that names the file, and the key or weight."""
    check_flux(folder)
    scheduler = read_flow_schedule(folder, may_be_dynamic=True)
    try:
        with only_errors():  # the libraries warn of what is checked here
            pipeline = flux_pipeline_of(
                vae=load_part(folder, "vae", AutoencoderKL, torch.float32),
                text_encoder=load_encoder(folder, "text_encoder", CLIPTextModel, frozen_dtype),
                tokenizer=load_tokenizer(folder, "tokenizer", CLIPTokenizer),
                text_encoder_2=load_encoder(folder, "text_encoder_2", T5EncoderModel, in_wide_half(frozen_dtype)),
                tokenizer_2=load_tokenizer(folder, "tokenizer_2", T5Tokenizer),
                transformer=load_part(folder, "transformer", FluxTransformer2DModel, denoiser_dtype),
                scheduler=scheduler,
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError("model_invalid", f"{folder.path}: could not be loaded: {error}") from error
    for suffix in ("", "_2"):
        encoder, tokenizer = getattr(pipeline, f"text_encoder{suffix}"), getattr(pipeline, f"tokenizer{suffix}")
        check_vocabulary(folder, tokenizer.get_vocab(), encoder.config.vocab_size, f"text_encoder{suffix}")
    return pipeline


def flux_pipeline_of(**parts: Any) -> FluxPipeline:
    """The diffusers pipeline of these parts, without a progress bar."""
    pipeline = FluxPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
