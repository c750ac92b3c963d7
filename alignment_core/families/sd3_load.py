"""The parts of a Stable Diffusion 3 folder as modules, whole."""

from typing import Any

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from safetensors import SafetensorError
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from alignment_core.errors import ModelError
from alignment_core.families.flow_schedule import read_flow_schedule
from alignment_core.families.pretrained import in_wide_half, load_tokenizer
from alignment_core.families.sd3_configs import check_sd3, has_t5
from alignment_core.families.sd_configs import check_vocabulary
from alignment_core.families.sd_load import load_encoder, load_part
from alignment_core.families.source import ModelFolder
from alignment_core.quiet import only_errors


def load_sd3_pipeline(
    folder: ModelFolder, *, frozen_dtype: torch.dtype, denoiser_dtype: torch.dtype
) -> StableDiffusion3Pipeline:
    """The pipeline of a folder whose parts fit, on the CPU; raises `ModelError` that names the file, and the key or weight."""
    check_sd3(folder)
    scheduler = read_flow_schedule(folder)
    try:
        with only_errors():  # the libraries warn of what is checked here
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
                transformer=load_part(folder, "transformer", SD3Transformer2DModel, denoiser_dtype),
                scheduler=scheduler,
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError("model_invalid", f"{folder.path}: could not be loaded: {error}") from error
    _check_vocabularies(folder, pipeline)
    return pipeline


def sd3_pipeline_of(**parts: Any) -> StableDiffusion3Pipeline:
    """The diffusers pipeline of these parts, without a progress bar."""
    pipeline = StableDiffusion3Pipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _check_vocabularies(folder: ModelFolder, pipeline: StableDiffusion3Pipeline) -> None:
    for suffix in ("", "_2", "_3"):
        encoder, tokenizer = getattr(pipeline, f"text_encoder{suffix}"), getattr(pipeline, f"tokenizer{suffix}")
        if encoder is not None:
            part = f"text_encoder{suffix}"
            check_vocabulary(folder, tokenizer.get_vocab(), encoder.config.vocab_size, part)
