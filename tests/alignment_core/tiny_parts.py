"""What the tiny flow-matching pipelines are made of: a VAE of 16 channels, a CLIP's configuration, a T5 and its tokenizer."""

from typing import Any

from diffusers import AutoencoderKL
from transformers import CLIPTextConfig, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

from tests.alignment_core.tiny import WORDS


def tiny_vae(latent_channels: int, scaling_factor: float, **config: Any) -> AutoencoderKL:
    """Of random weights."""
    return AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=latent_channels,
        layers_per_block=1,
        norm_num_groups=2,
        sample_size=16,
        scaling_factor=scaling_factor,
        **config,
    )


def flow_vae() -> AutoencoderKL:
    plain = {"use_quant_conv": False, "use_post_quant_conv": False, "mid_block_add_attention": False}
    return tiny_vae(16, 1.5, shift_factor=0.06, **plain)


def clip_config(tokenizer: CLIPTokenizer, width: int) -> CLIPTextConfig:
    """For the tokenizer's words; what is projected is as wide."""
    return CLIPTextConfig(
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


def t5(num_tokens: int, width: int) -> T5EncoderModel:
    """Of random weights."""
    return T5EncoderModel(
        T5Config(
            vocab_size=num_tokens,
            d_model=width,
            d_kv=4,
            d_ff=16,
            num_layers=1,
            num_heads=2,
            feed_forward_proj="gated-gelu",
        )
    )


def t5_tokenizer(num_tokens: int) -> T5Tokenizer:
    """Every word and letter of the tiny captions; it reads `num_tokens` of a prompt."""
    pieces = [f"▁{word}" for word in WORDS] + sorted({letter for word in WORDS for letter in word})
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return T5Tokenizer(vocab=[*special, *((piece, -3.0) for piece in pieces)], extra_ids=0, model_max_length=num_tokens)
