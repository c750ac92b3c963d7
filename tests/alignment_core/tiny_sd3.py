"""A Stable Diffusion 3 pipeline small enough to train in a test, in the format of the real one, with random weights."""

from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextModelWithProjection

from tests.alignment_core.tiny import tiny_tokenizer
from tests.alignment_core.tiny_parts import clip_config, flow_vae, t5, t5_tokenizer

WIDTH = 24  # of the T5, in which both CLIPs stand side by side with room to spare


def save_tiny_sd3(folder: Path, *, with_t5: bool = False, shift: float = 3.0) -> Path:
    """A pipeline of some 30,000 parameters for 16x16 images with what SD 3.5 has, saved as a diffusers folder."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    t5_words = t5_tokenizer(WIDTH) if with_t5 else None
    StableDiffusion3Pipeline(
        vae=flow_vae(),
        text_encoder=CLIPTextModelWithProjection(clip_config(tokenizer, 8)),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(clip_config(tokenizer, 12)),
        tokenizer_2=tiny_tokenizer(),
        text_encoder_3=None if t5_words is None else t5(len(t5_words), WIDTH),  # pyright: ignore[reportArgumentType]
        tokenizer_3=t5_words,  # pyright: ignore[reportArgumentType]
        transformer=SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=16,
            out_channels=16,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            caption_projection_dim=16,
            pooled_projection_dim=20,
            pos_embed_max_size=6,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift),
    ).save_pretrained(folder / "model", safe_serialization=True)
    return folder / "model"
