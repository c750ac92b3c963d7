"""The parts of an SD folder as modules, whole: every weight that a config asks for is there, and none besides."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
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
    with reading(folder):
        text_encoder = load_encoder(folder, "text_encoder", CLIPTextModel, frozen_dtype)
        tokenizer = CLIPTokenizer.from_pretrained(folder.path / "tokenizer", local_files_only=True)
        vae = load_part(folder, "vae", AutoencoderKL, torch.float32)
        unet = load_part(folder, "unet", UNet2DConditionModel, denoiser_dtype)
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


@contextmanager
def reading(folder: ModelFolder) -> Iterator[None]:
    """What the libraries raise inside is a `ModelError`; what they warn of is checked here."""
    try:
        with only_errors():
            yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError("model_invalid", f"{folder.path}: could not be loaded: {error}") from error


def load_encoder(folder: ModelFolder, part: str, model_class: Any, dtype: torch.dtype) -> Any:
    """A model of transformers, whose weights of another shape are told with their key."""
    return load_part(folder, part, model_class, dtype, ignore_mismatched_sizes=True)


def load_part(folder: ModelFolder, part: str, model_class: Any, dtype: torch.dtype, **options: bool) -> Any:
    """Both libraries leave missing weights empty or random and only warn, so they are asked what was missing."""
    of_a_variant = any("." in file.stem for file in folder.weight_files(part))
    model, loading = model_class.from_pretrained(
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
