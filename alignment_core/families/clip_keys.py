"""CLIP's text encoder under the names of the original files: transformers' own, or those of open_clip.

https://github.com/mlfoundations/open_clip/blob/main/src/open_clip/transformer.py (`TextTransformer`): queries, keys and
values are one matrix there, and the projection of the text is a matrix that is multiplied from the other side.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_OUTSIDE = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}
_IN_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_LAYER = re.compile(r"text_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_OF_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
PROJECTION = "text_projection"


def text_module(module: str) -> str:
    """The name of a module as files have had it since ever: newer transformers leave `text_model.` out."""
    return module if module.startswith(("text_model.", PROJECTION)) else f"text_model.{module}"


def transformers_clip(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights under transformers' names behind `prefix`."""
    return {prefix + text_module(key): value for key, value in weights.items() if not key.endswith("position_ids")}


def open_clip(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights under open_clip's names behind `prefix`."""
    named = {text_module(key): value for key, value in weights.items() if not key.endswith("position_ids")}
    found: dict[str, Tensor] = {}
    for key, value in named.items():
        if key == f"{PROJECTION}.weight":
            found[PROJECTION] = value.T.contiguous()
        elif key in _OUTSIDE:
            found[_OUTSIDE[key]] = value
        elif layer := _LAYER.fullmatch(key):
            number, part, kind = layer.groups()
            found |= _of_layer(number, part, kind, named)
    return {prefix + key: value for key, value in found.items()}


def _of_layer(number: str, part: str, kind: str, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    place, ours = f"transformer.resblocks.{number}", f"text_model.encoder.layers.{number}"
    if part not in _OF_ATTENTION:
        return {f"{place}.{_IN_LAYER[part]}.{kind}": named[f"{ours}.{part}.{kind}"]}
    if part != _OF_ATTENTION[0]:
        return {}  # it goes with the queries
    joined = torch.cat([named[f"{ours}.{one}.{kind}"] for one in _OF_ATTENTION])
    return {f"{place}.attn.in_proj_{kind}": joined}
