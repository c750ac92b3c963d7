"""An SDXL pipeline small enough to train in a test, in the format of the real one, with random weights."""

from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests.alignment_core.tiny import tiny_tokenizer
from tests.alignment_core.tiny_parts import tiny_vae

TIME_ID_SIZE, FIRST_WIDTH, SECOND_WIDTH, POOLED_WIDTH = 4, 16, 8, 12


def save_tiny_sdxl(
    folder: Path,
    *,
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon",
    zero_terminal_snr: bool = False,
    force_zeros: bool = True,
) -> Path:
    """A pipeline of some 40,000 parameters for 16x16 images, saved as a diffusers folder."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(tokenizer, FIRST_WIDTH)),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokenizer, SECOND_WIDTH)),
        tokenizer=tokenizer,
        tokenizer_2=tiny_tokenizer(),
        unet=_unet(),
        scheduler=DDIMScheduler(  # pyright: ignore[reportArgumentType]
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction_type,
            rescale_betas_zero_snr=zero_terminal_snr,
            timestep_spacing="trailing" if zero_terminal_snr else "leading",
        ),
        force_zeros_for_empty_prompt=force_zeros,
        add_watermarker=False,
    ).save_pretrained(folder / "model", safe_serialization=True)
    return folder / "model"


def _text_config(tokenizer: CLIPTokenizer, width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=POOLED_WIDTH,
        num_hidden_layers=2,  # the last but one is read
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _vae() -> AutoencoderKL:
    return tiny_vae(4, 0.5, mid_block_add_attention=False, force_upcast=True)


def _unet() -> UNet2DConditionModel:
    """No attention in the first block, as in SDXL's."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=FIRST_WIDTH + SECOND_WIDTH,
        attention_head_dim=(2, 4),  # pyright: ignore[reportArgumentType]
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_ID_SIZE,
        projection_class_embeddings_input_dim=6 * TIME_ID_SIZE + POOLED_WIDTH,
    )
