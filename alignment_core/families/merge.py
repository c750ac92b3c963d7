"""LoRA layers in a model's weights, and two LoRAs as one."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from alignment_core.families.keys import LoraLayer, LoraLayers
from alignment_core.families.lora_places import Components


def update_of(layer: LoraLayer) -> Tensor:
    """What the layer adds to its weight, B A alpha / rank, float32; of a convolution with its kernel."""
    product = layer.up.float().flatten(1) @ layer.down.float().flatten(1)
    return product.reshape(len(layer.up), *layer.down.shape[1:]) * (layer.alpha / len(layer.down))


@torch.no_grad()
def merge(components: Components, placed: Mapping[str, LoraLayers]) -> None:
    """Add the layers to the weights. The sum is float32 and rounded once, to the precision that the weight is kept in."""
    for component, layers in placed.items():
        for module, layer in layers.items():
            weight = components[component].get_submodule(module).get_parameter("weight")
            weight.copy_(weight.float() + update_of(layer).to(weight.device))


def fingerprint_of(placed: Mapping[str, LoraLayers]) -> str:
    """SHA-256 over what the layers add, and where."""
    digest = hashlib.sha256()
    for component, layers in sorted(placed.items()):
        for module, layer in sorted(layers.items()):
            digest.update(f"{component}.{module}\0".encode())
            digest.update(update_of(layer).cpu().numpy().tobytes())
    return digest.hexdigest()


def joined(first: LoraLayers, second: LoraLayers) -> dict[str, LoraLayer]:
    """One LoRA with the effect of both: in a layer that both change, the factors stand side by side.

    B A = [s_1 B_1, s_2 B_2] [A_1; A_2], the scales within B, so that alpha is the rank.
    """
    names = [*first, *(name for name in second if name not in first)]
    return {name: _side_by_side([lora[name] for lora in (first, second) if name in lora]) for name in names}


def _side_by_side(layers: list[LoraLayer]) -> LoraLayer:
    down = torch.cat([one.down.float().cpu() for one in layers])
    up = torch.cat([one.up.float().cpu() * (one.alpha / len(one.down)) for one in layers], dim=1)
    return LoraLayer(down, up, float(len(down)))
