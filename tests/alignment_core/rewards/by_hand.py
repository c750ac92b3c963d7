"""Published networks under their published names, written out in plain tensor algebra, with small random weights."""

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from alignment_core.rewards.affine import LAYERS, WIDTHS
from alignment_core.rewards.image_reward import BlipShape

State = dict[str, Tensor]

# The shape of open_clip's ViT-H-14, as small as a test needs; `vocab_size` and the ids are those of `clip.py`.
WIDTH, LAYERS_EACH, HEADS, PATCH, SIDE, EMBEDDING, POSITIONS = 32, 2, 4, 4, 16, 24, 77


def clip_shape(vocab: Mapping[str, int], hidden_act: str = "gelu") -> dict:
    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": LAYERS_EACH,
        "num_attention_heads": HEADS,
        "hidden_act": hidden_act,
    }
    ids = {"bos_token_id": vocab["<|startoftext|>"], "eos_token_id": vocab["<|endoftext|>"]}
    return {
        "projection_dim": EMBEDDING,
        "text_config": {**tower, **ids, "vocab_size": len(vocab), "max_position_embeddings": POSITIONS},
        "vision_config": {**tower, "image_size": SIDE, "patch_size": PATCH},
    }


def _random(shapes: Mapping[str, tuple[int, ...]], seed: int) -> State:
    """Weights of a size that makes activations differ; what scales a norm is near 1."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        scale = 1.5 / max(prod(shape[1:]), 1) ** 0.5 if len(shape) > 1 else 0.3
        state[name] = scale * torch.randn(shape, generator=generator)
        if ("norm" in name.lower() and name.endswith("weight")) or (".ln_" in name and name.endswith("weight")):
            state[name] = 1 + state[name]
    return state


# --- open_clip -----------------------------------------------------------------------------------------------------


def open_clip_state(vocab_size: int, seed: int = 0) -> State:
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (POSITIONS, WIDTH),
        "text_projection": (WIDTH, EMBEDDING),
        "logit_scale": (),
        "visual.class_embedding": (WIDTH,),
        "visual.positional_embedding": ((SIDE // PATCH) ** 2 + 1, WIDTH),
        "visual.proj": (WIDTH, EMBEDDING),
        "visual.conv1.weight": (WIDTH, 3, PATCH, PATCH),
        "token_embedding.weight": (vocab_size, WIDTH),
    }
    for norm in ("visual.ln_pre", "visual.ln_post", "ln_final"):
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    for tower in ("visual.transformer", "transformer"):
        for layer in range(LAYERS_EACH):
            shapes |= {f"{tower}.resblocks.{layer}.{part}": shape for part, shape in _open_clip_block().items()}
    return _random(shapes, seed)


def _open_clip_block() -> dict[str, tuple[int, ...]]:
    return {
        "ln_1.weight": (WIDTH,),
        "ln_1.bias": (WIDTH,),
        "attn.in_proj_weight": (3 * WIDTH, WIDTH),
        "attn.in_proj_bias": (3 * WIDTH,),
        "attn.out_proj.weight": (WIDTH, WIDTH),
        "attn.out_proj.bias": (WIDTH,),
        "ln_2.weight": (WIDTH,),
        "ln_2.bias": (WIDTH,),
        "mlp.c_fc.weight": (4 * WIDTH, WIDTH),
        "mlp.c_fc.bias": (4 * WIDTH,),
        "mlp.c_proj.weight": (WIDTH, 4 * WIDTH),
        "mlp.c_proj.bias": (WIDTH,),
    }


def open_clip_image(state: State, pixels: Tensor) -> Tensor:
    """Embedding of preprocessed images, float64."""
    s = _double(state)
    x = F.conv2d(pixels.double(), s["visual.conv1.weight"], stride=PATCH).flatten(2).transpose(1, 2)
    x = torch.cat([s["visual.class_embedding"].expand(len(x), 1, -1), x], dim=1) + s["visual.positional_embedding"]
    x = _norm(s, "visual.ln_pre", x)
    for layer in range(LAYERS_EACH):
        x = _open_clip_layer(s, f"visual.transformer.resblocks.{layer}", x, 0.0)
    return _norm(s, "visual.ln_post", x[:, 0]) @ s["visual.proj"]


def open_clip_text(state: State, ids: Tensor) -> Tensor:
    """Embedding at the end token, the largest id, float64."""
    s = _double(state)
    x = s["token_embedding.weight"][ids] + s["positional_embedding"][: ids.shape[1]]
    causal = torch.full((ids.shape[1], ids.shape[1]), -torch.inf, dtype=torch.float64).triu(1)
    for layer in range(LAYERS_EACH):
        x = _open_clip_layer(s, f"transformer.resblocks.{layer}", x, causal)
    return _norm(s, "ln_final", x)[torch.arange(len(ids)), ids.argmax(dim=1)] @ s["text_projection"]


def _open_clip_layer(s: State, name: str, x: Tensor, mask: Tensor | float) -> Tensor:
    y = _norm(s, f"{name}.ln_1", x)
    q, k, v = (y @ s[f"{name}.attn.in_proj_weight"].T + s[f"{name}.attn.in_proj_bias"]).chunk(3, dim=-1)
    x = x + _linear(s, f"{name}.attn.out_proj", _attend(q, k, v, HEADS, mask))
    y = F.gelu(_linear(s, f"{name}.mlp.c_fc", _norm(s, f"{name}.ln_2", x)))
    return x + _linear(s, f"{name}.mlp.c_proj", y)


# --- ImageReward ---------------------------------------------------------------------------------------------------

BLIP = BlipShape(
    image_size=16,
    patch_size=4,
    vision_width=24,
    vision_layers=2,
    vision_heads=3,
    text_width=32,
    text_layers=2,
    text_heads=4,
    vocabulary=20,
    positions=40,
)


def head_state(width: int, prefix: str = "", seed: int = 0) -> State:
    """Five linear layers under their published names."""
    inputs = (width, *WIDTHS[:-1])
    shapes: dict[str, tuple[int, ...]] = {}
    for index, rows, columns in zip(LAYERS, WIDTHS, inputs, strict=True):
        shapes |= {f"{prefix}layers.{index}.weight": (rows, columns), f"{prefix}layers.{index}.bias": (rows,)}
    return _random(shapes, seed)


def head(state: State, x: Tensor, prefix: str = "") -> Tensor:
    """One layer after the other, float64 [B]."""
    for index in LAYERS:
        x = _linear(_double(state), f"{prefix}layers.{index}", x.double())
    return x[:, 0]


def image_reward_state(seed: int = 0) -> State:
    """The published names, those that the reward does not use included."""
    v, t = BLIP.vision_width, BLIP.text_width
    shapes: dict[str, tuple[int, ...]] = {
        "blip.visual_encoder.cls_token": (1, 1, v),
        "blip.visual_encoder.pos_embed": (1, (BLIP.image_size // BLIP.patch_size) ** 2 + 1, v),
        **_module("blip.visual_encoder.patch_embed.proj", (v, 3, BLIP.patch_size, BLIP.patch_size)),
        **_module("blip.visual_encoder.norm", (v,)),
        "blip.text_encoder.embeddings.word_embeddings.weight": (BLIP.vocabulary, t),
        "blip.text_encoder.embeddings.position_embeddings.weight": (BLIP.positions, t),
        **_module("blip.text_encoder.embeddings.LayerNorm", (t,)),
        **_module("blip.vision_proj", (8, v)),
        **_module("blip.text_proj", (8, t)),
    }
    for layer in range(BLIP.vision_layers):
        name = f"blip.visual_encoder.blocks.{layer}"
        shapes |= _module(f"{name}.norm1", (v,)) | _module(f"{name}.norm2", (v,))
        shapes |= _module(f"{name}.attn.qkv", (3 * v, v)) | _module(f"{name}.attn.proj", (v, v))
        shapes |= _module(f"{name}.mlp.fc1", (4 * v, v)) | _module(f"{name}.mlp.fc2", (v, 4 * v))
    for layer in range(BLIP.text_layers):
        name = f"blip.text_encoder.encoder.layer.{layer}"
        for attention, source in (("attention", t), ("crossattention", v)):
            shapes |= _module(f"{name}.{attention}.self.query", (t, t))
            shapes |= _module(f"{name}.{attention}.self.key", (t, source))
            shapes |= _module(f"{name}.{attention}.self.value", (t, source))
            shapes |= _module(f"{name}.{attention}.output.dense", (t, t))
            shapes |= _module(f"{name}.{attention}.output.LayerNorm", (t,))
        shapes |= _module(f"{name}.intermediate.dense", (4 * t, t)) | _module(f"{name}.output.dense", (t, 4 * t))
        shapes |= _module(f"{name}.output.LayerNorm", (t,))
    buffers = {"blip.text_encoder.embeddings.position_ids": torch.arange(BLIP.positions)[None]}
    return {**_random(shapes, seed), **buffers, **head_state(t, "mlp.", seed)}


def _module(name: str, weight: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


def image_reward(state: State, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """The standardised score of preprocessed images and tokens, float64 [B]."""
    s = _double(state)
    patches = _blip_vision({k.removeprefix("blip.visual_encoder."): v for k, v in s.items()}, pixels.double())
    words = _blip_text({k.removeprefix("blip.text_encoder."): v for k, v in s.items()}, ids, mask, patches)
    return (head(state, words[:, 0], "mlp.") - 0.16717362830052426) / 1.0333394966054072


def _blip_vision(s: State, pixels: Tensor) -> Tensor:
    x = F.conv2d(pixels, s["patch_embed.proj.weight"], s["patch_embed.proj.bias"], stride=BLIP.patch_size)
    x = torch.cat([s["cls_token"].expand(len(x), 1, -1), x.flatten(2).transpose(1, 2)], dim=1) + s["pos_embed"]
    for layer in range(BLIP.vision_layers):
        name = f"blocks.{layer}"
        q, k, v = _linear(s, f"{name}.attn.qkv", _norm(s, f"{name}.norm1", x, 1e-6)).chunk(3, dim=-1)
        x = x + _linear(s, f"{name}.attn.proj", _attend(q, k, v, BLIP.vision_heads))
        y = F.gelu(_linear(s, f"{name}.mlp.fc1", _norm(s, f"{name}.norm2", x, 1e-6)))
        x = x + _linear(s, f"{name}.mlp.fc2", y)
    return _norm(s, "norm", x, 1e-6)


def _blip_text(s: State, ids: Tensor, mask: Tensor, patches: Tensor) -> Tensor:
    x = s["embeddings.word_embeddings.weight"][ids] + s["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = _norm(s, "embeddings.LayerNorm", x, 1e-12)
    padding = torch.zeros(mask.shape, dtype=torch.float64).masked_fill(mask == 0, -torch.inf)[:, None, None, :]
    for layer in range(BLIP.text_layers):
        name = f"encoder.layer.{layer}"
        for attention, source, hidden in (("attention", None, padding), ("crossattention", patches, 0.0)):
            part = f"{name}.{attention}.self"
            read = x if source is None else source
            q, k, v = (
                _linear(s, f"{part}.query", x),
                _linear(s, f"{part}.key", read),
                _linear(s, f"{part}.value", read),
            )
            y = _linear(s, f"{name}.{attention}.output.dense", _attend(q, k, v, BLIP.text_heads, hidden))
            x = _norm(s, f"{name}.{attention}.output.LayerNorm", x + y, 1e-12)
        y = _linear(s, f"{name}.output.dense", F.gelu(_linear(s, f"{name}.intermediate.dense", x)))
        x = _norm(s, f"{name}.output.LayerNorm", x + y, 1e-12)
    return x


# --- both ----------------------------------------------------------------------------------------------------------


def _double(state: State) -> State:
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _linear(s: State, name: str, x: Tensor) -> Tensor:
    return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]


def _norm(s: State, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)
    return centred / (variance + eps).sqrt() * s[f"{name}.weight"] + s[f"{name}.bias"]


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | float = 0.0) -> Tensor:
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + mask).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).flatten(2)
