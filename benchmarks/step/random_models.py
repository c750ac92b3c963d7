"""The folders of `sizes`: diffusers pipelines of random weights, and pairs of photographs to train them on."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from benchmarks.step.sizes import SD3_LATENTS, Size
from demo.text import new_tokenizer

MAX_TOKENS = 77
PROMPTS = ["a red circle", "a blue square", "a green triangle", "a yellow circle", "a red square", "a blue circle"]


def networks_of(size: Size, tokenizer: CLIPTokenizer) -> dict[str, nn.Module]:
    """Everything that has weights, by the pipeline's names; on the meta device nothing is computed or kept."""
    levels = len(size.vae["block_out_channels"])
    latents = {"sd": {}, "sdxl": {"scaling_factor": 0.13025}, "sd3": SD3_LATENTS}[size.kind]
    networks: dict[str, nn.Module] = {
        "vae": AutoencoderKL(
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * levels,  # pyright: ignore[reportArgumentType]
            up_block_types=("UpDecoderBlock2D",) * levels,  # pyright: ignore[reportArgumentType]
            **size.vae,
            **latents,
        )
    }
    for place, config in enumerate(size.text):
        pools = size.kind == "sd3" or place == 1
        name = "text_encoder" if place == 0 else f"text_encoder_{place + 1}"
        networks[name] = (CLIPTextModelWithProjection if pools else CLIPTextModel)(_text(size, config, tokenizer))
    side = size.resolution // 8
    if size.kind == "sd3":
        networks["transformer"] = SD3Transformer2DModel(sample_size=side, **size.denoiser)
    else:
        networks["unet"] = UNet2DConditionModel(sample_size=side, **size.denoiser)
    return networks


def save_model(size: Size, folder: Path) -> Path:
    """The model as a diffusers folder."""
    torch.manual_seed(0)
    tokenizer = new_tokenizer()
    tokenizer.model_max_length = MAX_TOKENS
    _pipeline(size, networks_of(size, tokenizer), tokenizer).save_pretrained(folder, safe_serialization=True)
    return folder


def _text(size: Size, config: dict[str, Any], tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    ids: dict[str, Any] = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    words = size.words or len(tokenizer)
    return CLIPTextConfig(vocab_size=words, max_position_embeddings=MAX_TOKENS, **ids, **config)


def _pipeline(size: Size, networks: Mapping[str, Any], tokenizer: CLIPTokenizer) -> DiffusionPipeline:
    match size.kind:
        case "sd":
            return StableDiffusionPipeline(
                **networks,
                tokenizer=tokenizer,
                scheduler=_ddim(),  # pyright: ignore[reportArgumentType]
                safety_checker=None,  # pyright: ignore[reportArgumentType]
                feature_extractor=None,  # pyright: ignore[reportArgumentType]
                requires_safety_checker=False,
            )
        case "sdxl":
            return StableDiffusionXLPipeline(
                **networks,
                tokenizer=tokenizer,
                tokenizer_2=tokenizer,
                scheduler=_ddim(),  # pyright: ignore[reportArgumentType]
                force_zeros_for_empty_prompt=True,
                add_watermarker=False,
            )
        case "sd3":
            return StableDiffusion3Pipeline(
                **networks,
                tokenizer=tokenizer,
                tokenizer_2=tokenizer,
                text_encoder_3=None,  # pyright: ignore[reportArgumentType]
                tokenizer_3=None,  # pyright: ignore[reportArgumentType]
                scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0),
            )
        case _:
            assert_never(size.kind)


def _ddim() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def save_pairs(size: Size, path: Path, num_pairs: int = 16) -> Path:
    """Pairs of JPEG photographs of noise, larger than the model trains at, as collections of preferences are."""
    table = {
        "prompt": [PROMPTS[index % len(PROMPTS)] for index in range(num_pairs)],
        "chosen": [_photo(size.photo, seed) for seed in range(num_pairs)],
        "rejected": [_photo(size.photo, 1000 + seed) for seed in range(num_pairs)],
        "label": [1.0] * num_pairs,
    }
    pq.write_table(pa.table(table), path)
    return path


def _photo(side: int, seed: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()
