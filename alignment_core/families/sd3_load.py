"""The parts of a Stable Diffusion 3 folder as modules, whole."""

from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from safetensors import SafetensorError
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, PreTrainedModel, T5EncoderModel, T5Tokenizer

from alignment_core.errors import ModelError
from alignment_core.families.flow_schedule import read_flow_schedule
from alignment_core.families.sd3_configs import check_sd3, has_t5
from alignment_core.families.sd_configs import check_vocabulary
from alignment_core.families.sd_load import refuse_partial
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
                vae=_load(folder, "vae", AutoencoderKL, torch.float32),
                text_encoder=_load(folder, "text_encoder", CLIPTextModelWithProjection, frozen_dtype),
                tokenizer=_tokenizer(folder, "tokenizer", CLIPTokenizer),
                text_encoder_2=_load(folder, "text_encoder_2", CLIPTextModelWithProjection, frozen_dtype),
                tokenizer_2=_tokenizer(folder, "tokenizer_2", CLIPTokenizer),
                text_encoder_3=_load(folder, "text_encoder_3", T5EncoderModel, _wide(frozen_dtype))
                if has_t5(folder)
                else None,
                tokenizer_3=_tokenizer(folder, "tokenizer_3", T5Tokenizer) if has_t5(folder) else None,
                transformer=_load(folder, "transformer", SD3Transformer2DModel, denoiser_dtype),
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


def fresh_scheduler(scheduler: FlowMatchEulerDiscreteScheduler) -> FlowMatchEulerDiscreteScheduler:
    """The same levels in a scheduler that has not stepped yet."""
    return FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)  # pyright: ignore[reportReturnType]


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The half precision of T5, whose activations overflow in float16."""
    return torch.bfloat16 if dtype is torch.float16 else dtype


def _load(folder: ModelFolder, part: str, kind: Any, dtype: torch.dtype) -> Any:
    """Both libraries leave missing weights empty or random and only warn, so they are asked what was missing."""
    read: Any = kind.from_pretrained
    of_a_variant = any("." in file.stem for file in folder.weight_files(part))
    options: dict[str, Any] = (
        {"ignore_mismatched_sizes": True} if issubclass(kind, PreTrainedModel) else {}
    )  # told with the key
    model, loading = read(
        folder.path / part,
        variant=folder.variant if of_a_variant else None,
        use_safetensors=True,
        local_files_only=True,
        dtype=dtype,
        output_loading_info=True,
        **options,
    )
    refuse_partial(folder.path / part, loading)
    return model


def _tokenizer(folder: ModelFolder, part: str, kind: Any) -> Any:
    return kind.from_pretrained(folder.path / part, local_files_only=True)


def _check_vocabularies(folder: ModelFolder, pipeline: StableDiffusion3Pipeline) -> None:
    for suffix in ("", "_2", "_3"):
        encoder, tokenizer = getattr(pipeline, f"text_encoder{suffix}"), getattr(pipeline, f"tokenizer{suffix}")
        if encoder is not None:
            part = f"text_encoder{suffix}"
            check_vocabulary(folder, tokenizer.get_vocab(), encoder.config.vocab_size, part)
