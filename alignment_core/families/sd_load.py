"""The parts of an SD 1.x folder as modules, whole: every weight that a config asks for is there, and none besides."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer

from alignment_core.errors import ModelError
from alignment_core.families.sd_configs import check_parts, check_vocabulary
from alignment_core.families.sd_schedule import read_schedule
from alignment_core.families.source import ModelFolder
from alignment_core.quiet import only_errors

# The other half of CLIP, which some folders keep beside the text encoder.
REST_OF_CLIP = ("vision_model.", "visual_projection.", "text_projection.", "logit_scale")


def load_pipeline(
    folder: ModelFolder, *, frozen_dtype: torch.dtype, denoiser_dtype: torch.dtype
) -> StableDiffusionPipeline:
    """The pipeline of a folder whose parts fit; raises `ModelError` that names the file, and the key or weight."""
    check_parts(folder)
    scheduler = read_schedule(folder)
    try:
        with only_errors():  # the libraries warn of what is checked here
            text_encoder = _load(folder, "text_encoder", frozen_dtype)
            tokenizer = CLIPTokenizer.from_pretrained(folder.path / "tokenizer", local_files_only=True)
            vae, unet = _load(folder, "vae", torch.float32), _load(folder, "unet", denoiser_dtype)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError("model_invalid", f"{folder.path}: could not be loaded: {error}") from error
    check_vocabulary(folder, tokenizer.get_vocab(), text_encoder.config.vocab_size)
    return pipeline_of(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, denoiser=unet, scheduler=scheduler)


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


_CLASSES = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}


def _load(folder: ModelFolder, part: str, dtype: torch.dtype) -> Any:
    """Both libraries leave missing weights empty or random and only warn, so they are asked what was missing."""
    of_a_variant = any("." in file.stem for file in folder.weight_files(part))
    options = {"ignore_mismatched_sizes": True} if part == "text_encoder" else {}  # told with the key, below
    model, loading = _CLASSES[part].from_pretrained(
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


def refuse_partial(path: Path, loading: dict[str, Any]) -> None:
    """Raise `ModelError` with the weight that a part lacks, or has too many, by what a library says that it loaded."""
    config = f"the model that {path / 'config.json'} describes"
    if missing := sorted(loading["missing_keys"]):
        raise ModelError("model_invalid", f"{path}: {_named(missing)} of {config} is missing")
    for name, found, expected in sorted(loading["mismatched_keys"]):
        shapes = f"has the shape {list(found)}, and in {config} it has {list(expected)}"
        raise ModelError("model_invalid", f"{path}: the weight {name!r} {shapes}")
    if unexpected := sorted(key for key in loading["unexpected_keys"] if not key.startswith(REST_OF_CLIP)):
        raise ModelError("model_invalid", f"{path}: {_named(unexpected)} is not part of {config}")


def _named(keys: Collection[str]) -> str:
    first, *others = keys
    return f"the weight {first!r}" + (f" (and {len(others)} more)" if others else "")
