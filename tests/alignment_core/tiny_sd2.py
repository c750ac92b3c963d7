"""A Stable Diffusion 2.x pipeline small enough to train in a test: what its files have that those of 1.x have not."""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from tests.alignment_core.tiny import save_tiny_pipeline

TEXT_WIDTH = 24


def save_tiny_sd2(folder: Path) -> Path:
    """v-prediction, OpenCLIP's activation, linear projections around attention, and heads block by block."""
    model = save_tiny_pipeline(folder, prediction_type="v_prediction")
    torch.manual_seed(2)
    config = CLIPTextConfig.from_pretrained(model / "text_encoder")
    config.hidden_size, config.hidden_act = TEXT_WIDTH, "gelu"
    CLIPTextModel(config).save_pretrained(model / "text_encoder", safe_serialization=True)
    UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=(2, 4),  # pyright: ignore[reportArgumentType]
        use_linear_projection=True,
        upcast_attention=True,
    ).save_pretrained(model / "unet", safe_serialization=True)
    return model
