"""Transformers under the names of their original code, which joins layers that diffusers keeps apart.

Queries, keys and values are one layer there: its weight has theirs one below the other, `W = [W_q; W_k; W_v]`. LoRAs of them
are one LoRA of it, block by block, with no approximation:

    [s B_q A_q; s B_k A_k; s B_v A_v] = s [B_q 0 0; 0 B_k 0; 0 0 B_v] [A_q; A_k; A_v]

sd-scripts joins and parts them so (https://github.com/kohya-ss/sd-scripts/blob/main/networks/convert_flux_lora.py), by blocks of
one rank, and diffusers and ComfyUI read what it writes. A layer that shifts and scales has the shift first there, and the
scale first in diffusers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignment_core.errors import ModelError
from alignment_core.families.keys import ComponentConfig, LoraLayer, LoraLayers, OriginalLayer, OriginalOf

Parts = tuple[str, ...]


Rows = Callable[[str, ComponentConfig], int]
"""(module, config) -> how many outputs a module that stands in a joined layer has."""


@dataclass(frozen=True)
class Block:
    """The blocks of a kind: what the original calls them, and by its name of each layer what stands in it."""

    name: str
    layers: Mapping[str, Parts]


def layer_of(module: str, blocks: Mapping[str, Block], outside: Mapping[str, str]) -> OriginalLayer:
    """The original layer of a module by the names of the blocks, `transformer_blocks.7.attn.to_q`, and of what is outside."""
    if module in outside:
        return OriginalLayer(outside[module], (module,))
    kind, _, rest = module.partition(".")
    number, _, inside = rest.partition(".")
    if kind in blocks:
        for name, parts in blocks[kind].layers.items():
            if inside in parts:
                whole = tuple(f"{kind}.{number}.{part}" for part in parts)
                return OriginalLayer(f"{blocks[kind].name}.{number}.{name}", whole)
    raise ModelError("export_unsupported", f"the original transformer has no module {module!r}")


def original_weights(
    weights: Mapping[str, Tensor], config: ComponentConfig, original_of: OriginalOf
) -> dict[str, Tensor]:
    """The weights of diffusers' transformer as the original's, without a prefix."""
    found: dict[str, Tensor] = {}
    for key, value in weights.items():
        module, _, kind = key.rpartition(".")
        original = original_of(module, config)
        if module == original.parts[0]:  # the others go with it
            joined = [weights[f"{part}.{kind}"] for part in original.parts]
            whole = torch.cat(joined) if len(joined) > 1 else value
            found[f"{original.name}.{kind}"] = _swapped(whole) if original.is_swapped else whole
    return found


def joined_lora(
    layers: LoraLayers, config: ComponentConfig, original_of: OriginalOf, rows: Rows
) -> dict[str, LoraLayer]:
    """LoRAs of diffusers' layers as LoRAs of the original's, by its names; what a joined layer lacks becomes zeros."""
    originals = {original_of(module, config): None for module in layers}
    return {one.name: _joined(one, layers, config, rows) for one in originals}


def apart(layer: LoraLayer, original: OriginalLayer, rows: Sequence[int]) -> dict[str, LoraLayer]:
    """The LoRA of an original layer as LoRAs of the parts that stand in it, of so many rows each."""
    if original.is_swapped:
        return {original.parts[0]: LoraLayer(layer.down, _swapped(layer.up), layer.alpha)}
    ups = layer.up.split(list(rows))
    rank, rest = divmod(len(layer.down), len(rows))
    blocks = [up.split(rank, dim=1) for up in ups] if not rest else []
    if not blocks or any(block.any() for i, row in enumerate(blocks) for j, block in enumerate(row) if i != j):
        return {part: LoraLayer(layer.down, up, layer.alpha) for part, up in zip(original.parts, ups, strict=True)}
    downs = layer.down.split(rank)
    parts = {
        part: LoraLayer(downs[number], blocks[number][number].contiguous(), layer.alpha / len(rows))
        for number, part in enumerate(original.parts)
    }
    return {part: one for part, one in parts.items() if one.up.any()}  # one of zeros was not there


def _joined(original: OriginalLayer, layers: LoraLayers, config: ComponentConfig, rows: Rows) -> LoraLayer:
    there = {part: layers[part] for part in original.parts if part in layers}
    if len(original.parts) == 1:
        (one,) = there.values()
        return LoraLayer(one.down, _swapped(one.up), one.alpha) if original.is_swapped else one
    rank, scale = max(len(one.down) for one in there.values()), _shared_scale(list(there.values()))
    inputs = next(iter(there.values())).down.shape[1]
    downs, ups = [], []
    for part in original.parts:
        down, up = torch.zeros(rank, inputs), torch.zeros(rows(part, config), rank)
        if (one := there.get(part)) is not None:
            down[: len(one.down)] = one.down
            up[:, : len(one.down)] = one.up if scale is not None else one.up * (one.alpha / len(one.down))
        downs.append(down)
        ups.append(up)
    num = rank * len(original.parts)
    return LoraLayer(torch.cat(downs), torch.block_diag(*ups), num * (1.0 if scale is None else scale))


def _shared_scale(layers: Sequence[LoraLayer]) -> float | None:
    """alpha / rank where it is the same in all: weights then stay what they are."""
    scales = {layer.alpha / len(layer.down) for layer in layers}
    return scales.pop() if len(scales) == 1 else None


def _swapped(weight: Tensor) -> Tensor:
    first, second = weight.chunk(2)
    return torch.cat([second, first])
