"""A FLUX.1 pipeline small enough to train in a test, in the format of the real ones, with random weights."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from tests.alignment_core.tiny import WORDS, tiny_tokenizer

T5_TOKENS = 12


def save_tiny_flux(folder: Path, *, is_dev: bool = True) -> Path:
    """A pipeline of some 30,000 parameters for 16x16 images, saved as a diffusers folder: as FLUX.1 dev, or as schnell."""
    torch.manual_seed(0)
    tokenizer, t5_tokenizer = tiny_tokenizer(), _t5_tokenizer()
    tokenizer.model_max_length = 8
    FluxPipeline(
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
        text_encoder=_clip(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=_t5(len(t5_tokenizer)),
        tokenizer_2=t5_tokenizer,  # pyright: ignore[reportArgumentType]
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


def _clip(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=10,
            intermediate_size=16,
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
            d_model=12,
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
    return T5Tokenizer(vocab=[*special, *((piece, -3.0) for piece in pieces)], extra_ids=0, model_max_length=T5_TOKENS)
