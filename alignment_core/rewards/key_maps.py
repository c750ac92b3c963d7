"""From the names in published weight files to those of transformers' classes.

`clip_from_open_clip` and `image_reward_from_blip` rename, transpose and split; they know nothing of shapes. The affine
heads are `alignment_core.rewards.affine`'s.
"""

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from alignment_core.rewards.affine import collapse

_CLIP_NAMES = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "logit_scale": "logit_scale",
}
_CLIP_TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
_CLIP_NORMS = {
    "visual.ln_pre": "vision_model.pre_layrnorm",  # spelt so in transformers
    "visual.ln_post": "vision_model.post_layernorm",
    "ln_final": "text_model.final_layer_norm",
}
_CLIP_BLOCK_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_CLIP_BLOCK = re.compile(r"(?P<tower>visual\.)?transformer\.resblocks\.(?P<layer>\d+)\.(?P<part>.+)")
_WEIGHT_OR_BIAS = re.compile(r"(?P<module>.+)\.(?P<kind>weight|bias)")


def clip_from_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`CLIPModel`'s state of an open_clip ViT's. Raises ValueError for a name that open_clip's CLIP does not have."""
    return dict(pair for name, tensor in state.items() for pair in _from_open_clip(name, tensor))


def _from_open_clip(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if (new := _CLIP_NAMES.get(name)) is not None:
        yield new, tensor
    elif (new := _CLIP_TRANSPOSED.get(name)) is not None:
        yield new, tensor.T
    elif (block := _CLIP_BLOCK.fullmatch(name)) is not None:
        tower = "vision_model" if block["tower"] else "text_model"
        yield from _from_block(f"{tower}.encoder.layers.{block['layer']}", name, block["part"], tensor)
    elif (found := _WEIGHT_OR_BIAS.fullmatch(name)) is not None and found["module"] in _CLIP_NORMS:
        yield f"{_CLIP_NORMS[found['module']]}.{found['kind']}", tensor
    else:
        raise ValueError(f"holds {name}, which open_clip's ViT does not have")


def _from_block(layer: str, name: str, part: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if part in ("attn.in_proj_weight", "attn.in_proj_bias"):
        if len(tensor) % 3:
            raise ValueError(f"{name} has {len(tensor)} rows, expected queries, keys and values of one size")
        kind = part.removeprefix("attn.in_proj_")
        for projection, rows in zip(("q_proj", "k_proj", "v_proj"), tensor.chunk(3), strict=True):
            yield f"{layer}.self_attn.{projection}.{kind}", rows
        return
    found = _WEIGHT_OR_BIAS.fullmatch(part)
    if found is None or found["module"] not in _CLIP_BLOCK_PARTS:
        raise ValueError(f"holds {name}, which open_clip's ViT does not have")
    yield f"{layer}.{_CLIP_BLOCK_PARTS[found['module']]}.{found['kind']}", tensor


# In this order: `norm` alone is the last layer's, `norm1` a block's.
_BLIP_VISION = (
    (re.compile(r"^blocks\."), "encoder.layers."),
    (re.compile(r"\.attn\.proj\."), ".self_attn.projection."),
    (re.compile(r"\.attn\."), ".self_attn."),
    (re.compile(r"\.norm([12])\."), r".layer_norm\1."),
    (re.compile(r"^patch_embed\.proj\."), "embeddings.patch_embedding."),
    (re.compile(r"^pos_embed$"), "embeddings.position_embedding"),
    (re.compile(r"^cls_token$"), "embeddings.class_embedding"),
    (re.compile(r"^norm\."), "post_layernorm."),
)
# Buffers, and projections of BLIP's pretraining that the reward does not use.
_BLIP_UNUSED = re.compile(r"text_encoder\.embeddings\.position_ids|(vision|text)_proj\.(weight|bias)")


def image_reward_from_blip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`ImageRewardNetwork`'s state of the published one: `blip.visual_encoder`, `blip.text_encoder`, `mlp.layers`.

    Raises ValueError for a name that the published file does not have, or a head that lacks one.
    """
    found: dict[str, Tensor] = {}
    head: dict[str, Tensor] = {}
    for name, tensor in state.items():
        blip = name.removeprefix("blip.")
        if name.startswith("mlp."):
            head[name.removeprefix("mlp.")] = tensor
        elif name == blip:
            raise ValueError(f"holds {name}, which ImageReward does not have")
        elif blip.startswith("visual_encoder."):
            found[f"vision_model.{_vision_name(blip.removeprefix('visual_encoder.'))}"] = tensor
        elif not _BLIP_UNUSED.fullmatch(blip):
            found[f"text_model.{blip.removeprefix('text_encoder.')}"] = tensor
    found["head.weight"], found["head.bias"] = collapse(head)
    return found


def _vision_name(name: str) -> str:
    for pattern, replacement in _BLIP_VISION:
        name = pattern.sub(replacement, name)
    return name
