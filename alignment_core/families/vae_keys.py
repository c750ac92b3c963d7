"""The VAE of SD 1.x, SD 2.x and SDXL under the names of the original code.

https://github.com/CompVis/stable-diffusion/blob/main/ldm/modules/diffusionmodules/model.py (`Encoder`, `Decoder`): levels of
the way up are numbered from the smallest image to the largest there and the other way round in diffusers; attention is of
convolutions of one pixel there, and linear in diffusers.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from alignment_core.families.keys import ComponentConfig

PREFIX = "first_stage_model."

_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    # as folders have them that were saved before diffusers had one attention for all
    "query": "q",
    "key": "k",
    "value": "v",
    "proj_attn": "proj_out",
}
_LEVEL = re.compile(r"(encoder|decoder)\.(down|up)_blocks\.(\d+)\.(?:resnets\.(\d+)|(down|up)samplers\.0)\.(.+)")
_MIDDLE = re.compile(r"(encoder|decoder)\.mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def original_vae(weights: Mapping[str, Tensor], config: ComponentConfig, prefix: str = PREFIX) -> dict[str, Tensor]:
    """The weights of diffusers' VAE as the single file of a whole model names them."""
    num_levels = len(config["block_out_channels"])
    return {prefix + _renamed(key, num_levels): _of_the_original(key, value) for key, value in weights.items()}


def _renamed(key: str, num_levels: int) -> str:
    module, _, kind = key.rpartition(".")
    return f"{_module(module, num_levels)}.{kind}"


def _module(module: str, num_levels: int) -> str:
    if found := _LEVEL.fullmatch(module):
        half, way, level, resnet, resampling, rest = found.groups()
        place = int(level) if way == "down" else num_levels - 1 - int(level)
        if resampling:
            return f"{half}.{way}.{place}.{resampling}sample.{rest}"
        return f"{half}.{way}.{place}.block.{resnet}.{rest.replace('conv_shortcut', 'nin_shortcut')}"
    if found := _MIDDLE.fullmatch(module):
        half, kind, number, rest = found.groups()
        if kind == "attentions":
            return f"{half}.mid.attn_{int(number) + 1}.{_ATTENTION[rest]}"
        return f"{half}.mid.block_{int(number) + 1}.{rest.replace('conv_shortcut', 'nin_shortcut')}"
    return module.replace("conv_norm_out", "norm_out")


def _of_the_original(key: str, value: Tensor) -> Tensor:
    return value[:, :, None, None] if ".attentions." in key and value.ndim == 2 else value
