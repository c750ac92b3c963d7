"""A FLUX.1 pipeline small enough to train in a test, in the format of the real ones, with random weights."""

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextModel

from tests.alignment_core.tiny import tiny_tokenizer
from tests.alignment_core.tiny_parts import clip_config, flow_vae, t5, t5_tokenizer

T5_TOKENS = 12


def save_tiny_flux(folder: Path, *, is_dev: bool = True) -> Path:
    """A pipeline of some 30,000 parameters for 16x16 images, saved as a diffusers folder: as FLUX.1 dev, or as schnell."""
    torch.manual_seed(0)
    tokenizer, t5_words = tiny_tokenizer(), t5_tokenizer(T5_TOKENS)
    tokenizer.model_max_length = 8
    FluxPipeline(
        vae=flow_vae(),
        text_encoder=CLIPTextModel(clip_config(tokenizer, 10)),
        tokenizer=tokenizer,
        text_encoder_2=t5(len(t5_words), 12),
        tokenizer_2=t5_words,  # pyright: ignore[reportArgumentType]
        transformer=FluxTransformer2DModel(
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=12,
            pooled_projection_dim=10,
            guidance_embeds=is_dev,
            axes_dims_rope=(2, 2, 4),  # pyright: ignore[reportArgumentType]
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=1000, shift=3.0 if is_dev else 1.0, use_dynamic_shifting=is_dev
        ),
    ).save_pretrained(folder / "model", safe_serialization=True)
    return folder / "model"
