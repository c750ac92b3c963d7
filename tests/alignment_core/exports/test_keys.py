"""The names that other tools have for weights: diffusers' own converters lead every one of them back, to the bit."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from alignment_core.errors import ModelError
from alignment_core.families.keys import LoraLayer
from alignment_core.families.sd_keys import SD
from alignment_core.families.sdxl_keys import SDXL
from alignment_core.families.unet_keys import original_unet_module

SD_UNET: dict[str, Any] = {
    "block_out_channels": (8, 16, 16, 16),
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
    "attention_head_dim": 4,
}
SDXL_UNET: dict[str, Any] = {
    "block_out_channels": (8, 16, 16),
    "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),
    "cross_attention_dim": 12,
    "attention_head_dim": 4,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 32,
}


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("keys", "shape"), [(SD, SD_UNET), (SDXL, SDXL_UNET)], ids=["sd", "sdxl"])
def test_diffusers_reads_the_unet_back(keys: Any, shape: dict[str, Any]) -> None:
    unet = UNet2DConditionModel(**shape)
    renamed = keys.to_original("unet", unet.state_dict(), dict(unet.config))
    assert len(renamed) == len(unet.state_dict())
    assert all(name.startswith("model.diffusion_model.") for name in renamed)
    assert_same(convert_ldm_unet_checkpoint(renamed, dict(unet.config)), unet.state_dict())


def test_sdxl_has_its_originals_block_numbers() -> None:
    names = {
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": "input_blocks.4.1.transformer_blocks.0.attn1.to_q",
        "down_blocks.2.resnets.1.time_emb_proj": "input_blocks.8.0.emb_layers.1",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
        "mid_block.resnets.1.conv2": "middle_block.2.out_layers.3",
        "up_blocks.0.attentions.2.proj_in": "output_blocks.2.1.proj_in",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.2.2.conv",
        "up_blocks.2.resnets.0.conv_shortcut": "output_blocks.6.0.skip_connection",
        "add_embedding.linear_2": "label_emb.0.2",
    }
    config = {**SDXL_UNET, "layers_per_block": 2}
    assert {name: original_unet_module(name, config) for name in names} == names
    with pytest.raises(ModelError, match="the original U-Net has no module 'encoder_hid_proj'"):
        original_unet_module("encoder_hid_proj", config)


@pytest.mark.parametrize("old_names", [False, True])
def test_diffusers_reads_the_vae_back(old_names: bool) -> None:
    vae = AutoencoderKL(
        block_out_channels=(4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=2,
        norm_num_groups=2,
    )
    weights = vae.state_dict()
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    if old_names:
        for new, name in old.items():
            weights = {key.replace(f".{new}.", f".{name}."): value for key, value in weights.items()}
    renamed = SD.to_original("vae", weights, dict(vae.config))  # pyright: ignore[reportOptionalCall]
    assert renamed["first_stage_model.encoder.mid.attn_1.q.weight"].shape == (8, 8, 1, 1)
    assert_same(convert_ldm_vae_checkpoint(renamed, dict(vae.config)), vae.state_dict())


def text_encoder() -> CLIPTextModelWithProjection:
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return CLIPTextModelWithProjection(
        CLIPTextConfig(vocab_size=20, max_position_embeddings=6, projection_dim=8, **sizes)
    )


def test_diffusers_reads_open_clips_names_back() -> None:
    model, prefix = text_encoder(), "conditioner.embedders.1.model."
    renamed = SDXL.to_original("text_encoder_2", model.state_dict(), {})  # pyright: ignore[reportOptionalCall]
    assert renamed[prefix + "transformer.resblocks.1.attn.in_proj_weight"].shape == (24, 8)
    back = convert_open_clip_checkpoint(model, renamed, prefix=prefix)
    assert_same({key: value for key, value in back.items() if "position_ids" not in key}, model.state_dict())


def layer() -> LoraLayer:
    return LoraLayer(torch.ones(2, 3), torch.ones(4, 2), 1.0)


def test_kohya_names_of_text_encoders_are_those_of_each_family() -> None:
    module = "encoder.layers.0.self_attn.q_proj"  # as transformers names it now
    layers = {module: layer(), f"text_model.{module}".replace("q_proj", "k_proj"): layer()}
    ends = {f"text_model_encoder_layers_0_self_attn_{one}_proj" for one in "qk"}
    assert SD.to_kohya is not None
    assert SDXL.to_kohya is not None
    assert SD.to_kohya("text_encoder", layers, {}).keys() == {f"lora_te_{end}" for end in ends}
    assert SDXL.to_kohya("text_encoder", layers, {}).keys() == {f"lora_te1_{end}" for end in ends}
    assert SDXL.to_kohya("text_encoder_2", layers, {}).keys() == {f"lora_te2_{end}" for end in ends}
