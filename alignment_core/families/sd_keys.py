"""Stable Diffusion 1.x and 2.x: what other tools call their weights."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from alignment_core.families.clip_keys import open_clip, text_module, transformers_clip
from alignment_core.families.keys import ComponentConfig, FamilyKeys, LoraLayer, LoraLayers
from alignment_core.families.unet_keys import original_unet
from alignment_core.families.vae_keys import original_vae

SD2_TEXT_WIDTH = 1024
KOHYA_PREFIXES = {"unet": "lora_unet_", "text_encoder": "lora_te_"}


def to_kohya(component: str, layers: LoraLayers, _config: ComponentConfig) -> dict[str, LoraLayer]:
    """kohya's scripts train diffusers' own modules: their names, with underscores for dots."""
    prefix = KOHYA_PREFIXES[component]
    named = {text_module(module) if component == "text_encoder" else module: one for module, one in layers.items()}
    return {prefix + module.replace(".", "_"): one for module, one in named.items()}


def to_original(component: str, weights: Mapping[str, Tensor], config: ComponentConfig) -> dict[str, Tensor]:
    """The single file of https://github.com/CompVis/stable-diffusion, or of Stability's SD 2.x."""
    match component:
        case "unet":
            return original_unet(weights, config)
        case "vae":
            return original_vae(weights, config)
        case "text_encoder" if config.get("hidden_size") == SD2_TEXT_WIDTH:
            return open_clip(weights, "cond_stage_model.model.")
        case "text_encoder":
            return transformers_clip(weights, "cond_stage_model.transformer.")
        case _:
            raise AssertionError(f"a single file of SD has no {component}")


def _is_sd2(unet: Mapping[str, Any]) -> bool:
    return unet.get("cross_attention_dim") == SD2_TEXT_WIDTH


def _architecture(unet: ComponentConfig) -> str:
    return "stable-diffusion-v2-768-v" if _is_sd2(unet) else "stable-diffusion-v1"


def _base_version(unet: ComponentConfig) -> str:
    return "sd_v2" if _is_sd2(unet) else "sd_v1"


SD = FamilyKeys(
    family="sd",
    components=("unet", "vae", "text_encoder"),
    to_kohya=to_kohya,
    to_original=to_original,
    architecture=_architecture,
    base_version=_base_version,
)
