"""The names that other tools have for weights: diffusers' own converters lead every one of them back, to the bit."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
    convert_sd3_transformer_checkpoint_to_diffusers,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from alignment_core.errors import ModelError
from alignment_core.families.flux_keys import FLUX
from alignment_core.families.keys import LoraLayer
from alignment_core.families.merge import update_of
from alignment_core.families.sd3_keys import SD3
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
    renamed = SD.to_original("vae", weights, dict(vae.config))
    assert renamed["first_stage_model.encoder.mid.attn_1.q.weight"].shape == (8, 8, 1, 1)
    assert_same(convert_ldm_vae_checkpoint(renamed, dict(vae.config)), vae.state_dict())


def text_encoder() -> CLIPTextModelWithProjection:
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return CLIPTextModelWithProjection(
        CLIPTextConfig(vocab_size=20, max_position_embeddings=6, projection_dim=8, **sizes)
    )


def test_diffusers_reads_open_clips_names_back() -> None:
    model, prefix = text_encoder(), "conditioner.embedders.1.model."
    renamed = SDXL.to_original("text_encoder_2", model.state_dict(), {})
    assert renamed[prefix + "transformer.resblocks.1.attn.in_proj_weight"].shape == (24, 8)
    back = convert_open_clip_checkpoint(model, renamed, prefix=prefix)
    assert_same({key: value for key, value in back.items() if "position_ids" not in key}, model.state_dict())


def layer() -> LoraLayer:
    return LoraLayer(torch.ones(2, 3), torch.ones(4, 2), 1.0)


def test_kohya_names_of_text_encoders_are_those_of_each_family() -> None:
    module = "encoder.layers.0.self_attn.q_proj"  # as transformers names it now
    layers = {module: layer(), f"text_model.{module}".replace("q_proj", "k_proj"): layer()}
    ends = {f"text_model_encoder_layers_0_self_attn_{one}_proj" for one in "qk"}
    assert SD.to_kohya("text_encoder", layers, {}).keys() == {f"lora_te_{end}" for end in ends}
    assert SDXL.to_kohya("text_encoder", layers, {}).keys() == {f"lora_te1_{end}" for end in ends}
    assert SDXL.to_kohya("text_encoder_2", layers, {}).keys() == {f"lora_te2_{end}" for end in ends}


# --- transformers, whose original code joins queries, keys and values ---


def real_widths(model: type[Any], **config: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights of a transformer of the published widths with random numbers and one column each, and its config."""
    with torch.device("meta"):
        transformer = model(**config)
    generator = torch.Generator().manual_seed(0)
    shapes = {name: (len(one), *([1] if one.ndim > 1 else [])) for name, one in transformer.state_dict().items()}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}, dict(transformer.config)


def test_diffusers_reads_flux_back() -> None:
    weights, config = real_widths(FluxTransformer2DModel, num_layers=1, num_single_layers=1, guidance_embeds=True)
    renamed = FLUX.to_original("transformer", weights, config)
    assert renamed["model.diffusion_model.single_blocks.0.linear1.weight"].shape == (3 * 3072 + 12288, 1)
    assert renamed["model.diffusion_model.double_blocks.0.img_attn.norm.query_norm.scale"].shape == (128,)
    assert_same(convert_flux_transformer_checkpoint_to_diffusers(dict(renamed)), weights)


@pytest.mark.parametrize("version", ["3", "3.5"])
def test_diffusers_reads_sd3_back(version: str) -> None:
    newer = {"qk_norm": "rms_norm", "dual_attention_layers": (0,)} if version == "3.5" else {}
    weights, config = real_widths(SD3Transformer2DModel, num_layers=2, **newer)
    renamed = SD3.to_original("transformer", weights, config)
    assert renamed["model.diffusion_model.joint_blocks.1.context_block.attn.qkv.weight"].shape == (3 * 1152, 1)
    back = convert_sd3_transformer_checkpoint_to_diffusers(dict(renamed))
    assert_same(back, weights)


def test_a_module_that_the_original_lacks_is_named() -> None:
    with pytest.raises(ModelError, match=r"the original transformer has no module 'transformer_blocks\.0\.extra'"):
        FLUX.to_original("transformer", {"transformer_blocks.0.extra.weight": torch.zeros(1)}, {})


FLUX_SHAPE = {"num_attention_heads": 24, "attention_head_dim": 128}
FLUX_LORA = {
    "transformer_blocks.0.attn.to_q": 3072,
    "transformer_blocks.0.attn.to_k": 3072,
    "transformer_blocks.0.attn.to_v": 3072,
    "transformer_blocks.0.attn.add_k_proj": 3072,  # alone in its joined layer
    "transformer_blocks.0.ff.net.2": 3072,
    "single_transformer_blocks.1.attn.to_v": 3072,
    "single_transformer_blocks.1.proj_mlp": 12288,
    "single_transformer_blocks.1.proj_out": 3072,
    "single_transformer_blocks.1.norm.linear": 9216,
}


@pytest.mark.parametrize("alphas", [(3.0, 3.0), (3.0, 1.0)], ids=["one scale", "a scale each"])
def test_diffusers_reads_kohyas_flux_back_with_the_same_effect(alphas: tuple[float, float]) -> None:
    generator = torch.Generator().manual_seed(0)
    layers = {
        module: LoraLayer(
            torch.randn(2, 5, generator=generator), torch.randn(rows, 2, generator=generator), alphas[number % 2]
        )
        for number, (module, rows) in enumerate(FLUX_LORA.items())
    }
    named = FLUX.to_kohya("transformer", layers, FLUX_SHAPE)
    assert named["lora_unet_double_blocks_0_img_attn_qkv"].down.shape == (6, 5)
    assert named["lora_unet_single_blocks_1_linear1"].up.shape == (21504, 8)
    if alphas[0] == alphas[1]:
        assert torch.equal(named["lora_unet_double_blocks_0_img_attn_qkv"].down[:2], layers[next(iter(layers))].down)
    tensors = {}
    for name, one in named.items():
        tensors |= {f"{name}.lora_down.weight": one.down, f"{name}.lora_up.weight": one.up}
        tensors[f"{name}.alpha"] = torch.tensor(one.alpha)
    read = _convert_kohya_flux_lora_to_diffusers(tensors)
    effects = {
        key.removeprefix("transformer.").removesuffix(".lora_A.weight"): read[key.replace("_A.", "_B.")] @ read[key]
        for key in read
        if key.endswith(".lora_A.weight")
    }
    there = {module: effect for module, effect in effects.items() if effect.any()}
    assert there.keys() == layers.keys()
    for module, layer in layers.items():
        torch.testing.assert_close(there[module], update_of(layer), rtol=0, atol=1e-5)
