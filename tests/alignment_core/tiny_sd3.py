"""A Stable Diffusion 3 pipeline small enough to train in a test, in the format of the real one, with random weights."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from tests.alignment_core.tiny import WORDS, tiny_tokenizer

WIDTH = 24  # of the T5, in which both CLIPs stand side by side with room to spare


def save_tiny_sd3(folder: Path, *, with_t5: bool = False, shift: float = 3.0) -> Path:
    """A pipeline of some 30,000 parameters for 16x16 images with what SD 3.5 has, saved as a diffusers folder."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    t5_tokenizer = _t5_tokenizer() if with_t5 else None
    StableDiffusion3Pipeline(
        vae=AutoencoderKL(
            block_out_channels=(4, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=16,
            layers_per_block=1,
            norm_num_groups=2,
            sample_size=16,
            scaling_factor=1.5,
            shift_factor=0.06,
            use_quant_conv=False,
            use_post_quant_conv=False,
            mid_block_add_attention=False,
        ),
        text_encoder=_clip(tokenizer, 8),
        tokenizer=tokenizer,
        text_encoder_2=_clip(tokenizer, 12),
        tokenizer_2=tiny_tokenizer(),
        text_encoder_3=None if t5_tokenizer is None else _t5(len(t5_tokenizer)),  # pyright: ignore[reportArgumentType]
        tokenizer_3=t5_tokenizer,  # pyright: ignore[reportArgumentType]
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


def _clip(tokenizer: CLIPTokenizer, width: int) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=16,
            projection_dim=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=8,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _t5(num_tokens: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=num_tokens,
            d_model=WIDTH,
            d_kv=4,
            d_ff=16,
            num_layers=1,
            num_heads=2,
            feed_forward_proj="gated-gelu",
        )
    )


def _t5_tokenizer() -> T5Tokenizer:
    pieces = [f"▁{word}" for word in WORDS] + sorted({letter for word in WORDS for letter in word})
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return T5Tokenizer(vocab=[*special, *((piece, -3.0) for piece in pieces)], extra_ids=0, model_max_length=24)
