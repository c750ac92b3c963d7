"""The U-Net of SD 1.x, SD 2.x and SDXL under the names of the original code (`ldm`, later `sgm`).

The original numbers its blocks through: with n residual blocks a level, level i of the way down begins at `input_blocks`
1 + i (n + 1), and level i of the way up at `output_blocks` i (n + 1). In each, `.0` is the residual block and `.1` the
transformer; the last of a level is the downsampler, or holds the upsampler behind whatever else it has.
https://github.com/CompVis/stable-diffusion/blob/main/ldm/modules/diffusionmodules/openaimodel.py
"""

import re
from collections.abc import Mapping

from torch import Tensor

from alignment_core.errors import ModelError
from alignment_core.families.keys import ComponentConfig

PREFIX = "model.diffusion_model."

_OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "class_embedding.linear_1": "label_emb.0.0",
    "class_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_IN_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")


def original_unet_module(module: str, config: ComponentConfig) -> str:
    """The original name of a module of diffusers' U-Net; raises `ModelError` for one that the original does not have."""
    if module in _OUTSIDE:
        return _OUTSIDE[module]
    if found := _BLOCK.fullmatch(module):
        way, level, kind, number, rest = found.groups()
        return _in_block(way, int(level), kind, int(number), rest, config)
    if found := _MIDDLE.fullmatch(module):
        kind, number, rest = found.groups()
        place = 1 if kind == "attentions" else 2 * int(number)
        return f"middle_block.{place}.{_inside(kind, rest)}"
    raise ModelError("export_unsupported", f"the original U-Net has no module {module!r}")


def original_unet(weights: Mapping[str, Tensor], config: ComponentConfig) -> dict[str, Tensor]:
    """The weights of diffusers' U-Net as the single file of a whole model names them."""
    return {PREFIX + _renamed(key, config): value for key, value in weights.items()}


def _renamed(key: str, config: ComponentConfig) -> str:
    module, _, kind = key.rpartition(".")
    return f"{original_unet_module(module, config)}.{kind}"


def _in_block(way: str, level: int, kind: str, number: int, rest: str, config: ComponentConfig) -> str:
    num_layers = config["layers_per_block"]
    if not isinstance(num_layers, int):
        raise ModelError("export_unsupported", "the original U-Net has as many residual blocks on every level")
    first = level * (num_layers + 1)
    match way, kind:
        case "down", "downsamplers":
            return f"input_blocks.{first + num_layers + 1}.0.op"
        case "up", "upsamplers":
            has_transformer = "Attn" in config["up_block_types"][level]
            return f"output_blocks.{first + num_layers}.{2 if has_transformer else 1}.conv"
        case "down", _:
            return f"input_blocks.{first + 1 + number}.{_place(kind)}.{_inside(kind, rest)}"
        case _:
            return f"output_blocks.{first + number}.{_place(kind)}.{_inside(kind, rest)}"


def _place(kind: str) -> int:
    return 1 if kind == "attentions" else 0


def _inside(kind: str, rest: str) -> str:
    """Transformers have the same names within; residual blocks have others."""
    return rest if kind == "attentions" else _IN_RESNET.get(rest, rest)
