"""The LoRA of an SD 1.x U-Net under kohya's names, which ComfyUI, A1111, InvokeAI and kohya's own scripts read.

    lora_unet_<module, dots as underscores>.lora_down.weight    A  [r, in] or [r, in, k, k]
    lora_unet_<module, dots as underscores>.lora_up.weight      B  [out, r] or [out, r, 1, 1]
    lora_unet_<module, dots as underscores>.alpha               the update is B A alpha / r

Modules have diffusers' names, as in https://github.com/kohya-ss/sd-scripts/blob/main/networks/lora.py (`LoRANetwork`).
A file without alphas is read as alpha = r, and so is one by diffusers' `convert_state_dict_to_kohya`, which writes r there.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

PREFIX = "lora_unet_"
_SIDES = {".lora_A.weight": "lora_down", ".lora_B.weight": "lora_up"}
SD2_TEXT_WIDTH = 1024


def kohya_layers(layers: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """PEFT's `<module>.lora_A.weight` and `<module>.lora_B.weight` under kohya's names, with the alpha of each layer."""
    renamed: dict[str, Tensor] = {}
    for key, value in layers.items():
        side = next(side for side in _SIDES if key.endswith(side))
        name = PREFIX + key.removesuffix(side).replace(".", "_")
        renamed[f"{name}.{_SIDES[side]}.weight"] = value
        renamed[f"{name}.alpha"] = torch.tensor(float(alpha))
    return renamed


def kohya_metadata(*, rank: int, alpha: float, text_width: int) -> dict[str, str]:
    """The header entries by which A1111 sorts LoRAs: without `ss_v2` it takes one for SD 2.x for one for SD 1.x."""
    return {
        "format": "pt",
        "ss_network_alpha": str(float(alpha)),
        "ss_network_dim": str(rank),
        "ss_network_module": "networks.lora",
        "ss_v2": str(text_width == SD2_TEXT_WIDTH),
    }
