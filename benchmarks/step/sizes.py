"""Models of random weights in the proportions of real ones: what a step costs does not depend on what a model has learnt.

The large ones have the published configurations, but for the words of their tokenizer, which is the demo's; SD 3.5 is without its
T5, as it may be run: a step that reads captions anew would take longer with it.
"""

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["sd", "sdxl", "sd3"]


@dataclass(frozen=True)
class Size:
    """A model of random weights, and the pixels it trains at; `photo` is the side of its images on disk."""

    resolution: int
    photo: int
    denoiser: dict[str, Any]
    vae: dict[str, Any]
    text: tuple[dict[str, Any], ...]
    kind: Kind = "sd"
    words: int | None = None
    """Of the text encoders' vocabulary; the tokenizer's where it is left out."""
    batch_size: int = 4
    prompts: int = 2


TOLERANCE = 2e-5
"""How far losses and gradients may differ: winner's and loser's gradients cancel, to 1.4e-5 in the deeper denoisers, whatever beta."""

CLIP_L = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "projection_dim": 768,
}
CLIP_G = {
    "hidden_size": 1280,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "intermediate_size": 5120,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
CLIP_WORDS = 49_408
SMALL_CLIP = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 256,
    "projection_dim": 64,
}
TINY_VAE = {"block_out_channels": (12, 24, 48, 48), "norm_num_groups": 6}
VAE = {"block_out_channels": (128, 256, 512, 512)}
SD3_VAE = {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
SD3_LATENTS = {"scaling_factor": 1.5305, "shift_factor": 0.0609}


def xl_unet(widths: tuple[int, int, int], heads: tuple[int, int, int], text: int, pooled: int) -> dict[str, Any]:
    """SDXL's: no attention at the first level, and ten transformer blocks at the last."""
    return {
        "block_out_channels": widths,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": heads,
        "cross_attention_dim": text,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": pooled + 6 * 256,
    }


def joint_transformer(layers: int, dual: int, heads: int, head_dim: int, text: int, pooled: int) -> dict[str, Any]:
    """SD 3.5 medium's: a second attention to the image alone in its first blocks, queries and keys normalised."""
    return {
        "num_layers": layers,
        "dual_attention_layers": tuple(range(dual)),
        "num_attention_heads": heads,
        "attention_head_dim": head_dim,
        "caption_projection_dim": heads * head_dim,
        "joint_attention_dim": text,
        "pooled_projection_dim": pooled,
        "in_channels": 16,
        "out_channels": 16,
        "pos_embed_max_size": 384,
        "qk_norm": "rms_norm",
    }


# tiny: 8.6 M of U-Net. Encoding an image costs 1.35 forwards of the U-Net and decoding one 3.07; in SD 1.5 it is 1.39 and 3.13. Two heads,
# since of eight each would have 4 dimensions, of which a CPU's attention makes three times its share of the step.
SIZES = {
    "tiny": Size(
        resolution=128,
        photo=192,
        denoiser={
            "block_out_channels": (32, 64, 128, 128),
            "cross_attention_dim": 64,
            "norm_num_groups": 16,
            "attention_head_dim": 2,
        },
        vae=TINY_VAE,
        text=({**SMALL_CLIP},),
    ),
    "tiny-sdxl": Size(
        kind="sdxl",
        resolution=256,
        photo=320,
        denoiser={**xl_unet((32, 64, 128), (1, 2, 4), 128, 64), "norm_num_groups": 16},
        vae=TINY_VAE,
        text=(SMALL_CLIP, SMALL_CLIP),
        batch_size=2,
    ),
    "tiny-sd35m": Size(
        kind="sd3",
        resolution=256,
        photo=320,
        denoiser=joint_transformer(6, 3, 4, 32, 256, 128),
        vae={**TINY_VAE, **SD3_VAE},
        text=(SMALL_CLIP, SMALL_CLIP),
        batch_size=2,
    ),
    "sd15": Size(
        resolution=512,
        photo=768,
        denoiser={
            "block_out_channels": (320, 640, 1280, 1280),
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },
        vae=VAE,
        text=(CLIP_L,),
        words=CLIP_WORDS,
        batch_size=8,
        prompts=8,
    ),
    "sdxl": Size(
        kind="sdxl",
        resolution=1024,
        photo=1280,
        denoiser=xl_unet((320, 640, 1280), (5, 10, 20), 2048, 1280),
        vae=VAE,
        text=(CLIP_L, CLIP_G),
        words=CLIP_WORDS,
        batch_size=1,  # the plain implementation's float32 has no room for more on one card
    ),
    "sd35m": Size(
        kind="sd3",
        resolution=1024,
        photo=1280,
        denoiser=joint_transformer(24, 13, 24, 64, 4096, 2048),
        vae={**VAE, **SD3_VAE},
        text=(CLIP_L, CLIP_G),
        words=CLIP_WORDS,
        batch_size=1,  # the plain implementation's float32 has no room for more on one card
    ),
}
