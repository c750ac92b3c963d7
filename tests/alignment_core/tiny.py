"""A Stable Diffusion pipeline small enough to train in a test, in the format of the real one, with random weights."""

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from alignment_core.spec import JobSpec

WORDS = ["a", "red", "green", "blue", "circle", "square"]
EVALUATION: dict[str, object] = {
    "prompts": ["a red circle", "a blue square"],
    "rewards": [{"type": "brightness"}],
    "num_inference_steps": 2,
    "guidance_scale": 1.0,
    "batch_size": 160,  # so many draws the drift takes, in one go
    "bootstrap_resamples": 200,
}
# the least that a run can compare at its end, for tests of what comes before it
UNJUDGED: dict[str, object] = {
    "prompts": ["a red circle"],
    "seeds_per_prompt": 1,
    "num_inference_steps": 2,
    "guidance_scale": 1.0,
    "batch_size": 160,
    "bootstrap_resamples": 100,
}


def save_tiny_pipeline(folder: Path, *, prediction_type: Literal["epsilon", "v_prediction"] = "epsilon") -> Path:
    """A pipeline of some 40,000 parameters for 16x16 images, saved as a diffusers folder."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    text_config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(4, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
            sample_size=16,
            scaling_factor=0.5,
            mid_block_add_attention=False,
        ),
        text_encoder=CLIPTextModel(text_config),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=2,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=2,
        ),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction_type,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder / "model", safe_serialization=True)
    return folder / "model"


def tiny_tokenizer() -> CLIPTokenizer:
    tokens = [*WORDS, *[f"{word}</w>" for word in WORDS]]
    letters = sorted({letter for word in WORDS for letter in word})
    vocabulary = dict.fromkeys(
        [*letters, *[f"{letter}</w>" for letter in letters], *tokens, "<|startoftext|>", "<|endoftext|>"]
    )
    merges = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
            vocabulary.setdefault(pieces[0])
    places = {token: place for place, token in enumerate(vocabulary)}
    return CLIPTokenizer(vocab=places, merges=list(dict.fromkeys(merges)), model_max_length=8)


def png(color: Sequence[int], *, noise_seed: int, size: int = 16) -> bytes:
    """A noisy image of one colour, as PNG bytes."""
    noise = np.random.default_rng(noise_seed).normal(0, 20, (size, size, 3))
    pixels = np.clip(np.asarray(color) + noise, 0, 255).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def two_words(index: int) -> str:
    return f"a {WORDS[1 + index % 3]} {WORDS[4 + index % 2]}"


def save_pairs(path: Path, num_pairs: int = 12, prompt: Callable[[int], str] = two_words) -> Path:
    """Pairs whose chosen image is bright and whose rejected image is dark; two pairs a prompt, unless told otherwise."""
    prompts = [prompt(i) for i in range(num_pairs)]
    table = {
        "prompt": prompts,
        "chosen": [png((200, 120, 60), noise_seed=i) for i in range(num_pairs)],
        "rejected": [png((40, 40, 40), noise_seed=1000 + i) for i in range(num_pairs)],
        "label": [1.0] * num_pairs,
    }
    pq.write_table(pa.table(table), path)
    return path


def tiny_spec(model_folder: Path, pairs: Path, /, **changes: object) -> JobSpec:
    """Six LoRA steps of four pairs, in two micro-batches, evaluated by brightness; `changes` replace top-level parts."""
    spec = {
        "model": {"type": "local", "path": str(model_folder)},
        "method": {"type": "diffusion_dpo", "dataset": {"type": "local", "path": str(pairs)}, "beta": 500.0},
        "adapter": {"type": "lora", "rank": 2},
        "training": {
            "steps": 6,
            "batch_size": 2,
            "gradient_accumulation_steps": 2,
            "learning_rate": 1e-3,
            "validation_fraction": 0.2,
        },
        "evaluation": EVALUATION,
        "checkpoints": {"every": 2},
        "resources": {"device": "cpu"},
        "seed": 7,
    }
    merged = {**spec, **changes}
    training = merged["training"]
    if isinstance(training, dict):  # what is tried before a run has tests of its own
        merged["training"] = {"start_checks": False, **training}
    return JobSpec.model_validate(merged)
