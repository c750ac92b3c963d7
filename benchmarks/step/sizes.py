"""Models of random weights in the proportions of real ones: what a step costs does not depend on what a model has learnt."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel

from demo.text import new_tokenizer

MAX_TOKENS = 77


@dataclass(frozen=True)
class Size:
    """A Stable Diffusion 1.x of random weights, and the pixels it trains at; `photo` is the side of its images on disk."""

    resolution: int
    photo: int
    unet: dict[str, Any]
    vae: dict[str, Any]
    text: dict[str, Any]
    batch_size: int = 4
    prompts: int = 2


DOWN, UP = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4

# tiny: 8.6 M of U-Net. Encoding an image costs 1.35 forwards of the U-Net and decoding one 3.07; in SD 1.5 it is 1.39 and 3.13. Two heads,
# since of eight each would have 4 dimensions, of which a CPU's attention makes three times its share of the step.
SIZES = {
    "tiny": Size(
        resolution=128,
        photo=192,
        unet={
            "block_out_channels": (32, 64, 128, 128),
            "cross_attention_dim": 64,
            "norm_num_groups": 16,
            "attention_head_dim": 2,
        },
        vae={"block_out_channels": (12, 24, 48, 48), "norm_num_groups": 6},
        text={"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256},
    ),
    "sd15": Size(
        resolution=512,
        photo=768,
        unet={"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768, "attention_head_dim": 8},
        vae={"block_out_channels": (128, 256, 512, 512)},
        text={"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
        batch_size=8,
        prompts=8,
    ),
}


def save_model(size: Size, folder: Path) -> Path:
    """The model as a diffusers folder."""
    torch.manual_seed(0)
    tokenizer = new_tokenizer()
    tokenizer.model_max_length = MAX_TOKENS
    ids: dict[str, Any] = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    blocks: dict[str, Any] = {"down_block_types": DOWN, "up_block_types": UP}
    text = CLIPTextConfig(vocab_size=len(tokenizer), max_position_embeddings=MAX_TOKENS, **ids, **size.text)
    StableDiffusionPipeline(
        vae=AutoencoderKL(layers_per_block=2, **blocks, **size.vae),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(sample_size=size.resolution // 8, **size.unet),
        scheduler=DDIMScheduler(  # pyright: ignore[reportArgumentType]
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,  # pyright: ignore[reportArgumentType]
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)
    return folder


PROMPTS = ["a red circle", "a blue square", "a green triangle", "a yellow circle", "a red square", "a blue circle"]


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
