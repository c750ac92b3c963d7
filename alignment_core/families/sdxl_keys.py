"""SDXL: what other tools call its weights.

A LoRA of the U-Net has the original's module names in kohya's files (kohya's scripts train a U-Net of their own there), and
one of a text encoder has transformers'. Single files are Stability's: https://github.com/Stability-AI/generative-models.
"""

from collections.abc import Mapping

from torch import Tensor

from alignment_core.families.clip_keys import open_clip, text_module, transformers_clip
from alignment_core.families.keys import ComponentConfig, FamilyKeys, LoraLayer, LoraLayers
from alignment_core.families.unet_keys import original_unet, original_unet_module
from alignment_core.families.vae_keys import original_vae

KOHYA_PREFIXES = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}


def to_kohya(component: str, layers: LoraLayers, config: ComponentConfig) -> dict[str, LoraLayer]:
    """https://github.com/kohya-ss/sd-scripts/blob/main/library/sdxl_model_util.py has the U-Net's names."""

    def named(module: str) -> str:
        return original_unet_module(module, config) if component == "unet" else text_module(module)

    return {KOHYA_PREFIXES[component] + named(module).replace(".", "_"): one for module, one in layers.items()}


def to_original(component: str, weights: Mapping[str, Tensor], config: ComponentConfig) -> dict[str, Tensor]:
    match component:
        case "unet":
            return original_unet(weights, config)
        case "vae":
            return original_vae(weights, config)
        case "text_encoder":
            return transformers_clip(weights, "conditioner.embedders.0.transformer.")
        case "text_encoder_2":
            return open_clip(weights, "conditioner.embedders.1.model.")
        case _:
            raise AssertionError(f"a single file of SDXL has no {component}")


SDXL = FamilyKeys(
    family="sdxl",
    components=("unet", "vae", "text_encoder", "text_encoder_2"),
    to_kohya=to_kohya,
    to_original=to_original,
    architecture=lambda _: "stable-diffusion-xl-v1-base",
    base_version=lambda _: "sdxl_base_v1-0",
)
