"""LoRAs of the tiny model under every tool's names, with a rank and an alpha of each layer's own."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor, nn

from alignment_core.families.clip_keys import text_module
from alignment_core.families.keys import LoraLayer
from alignment_core.families.unet_keys import original_unet_module

Layers = dict[str, LoraLayer]


def pipeline_of(model: Path) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def random_layers(
    network: nn.Module, endings: tuple[str, ...], *, rank: int | None = None, alpha: float | None = None
) -> Layers:
    """A layer for each module whose name ends so; ranks 1 to 3 and alphas 1 to 2.5 in turn, unless they are given."""
    generator = torch.Generator().manual_seed(3)
    chosen = [(name, one) for name, one in network.named_modules() if name.endswith(endings)]
    return {
        name: random_layer(
            one.get_parameter("weight"), rank or 1 + place % 3, alpha or 1 + 0.5 * (place % 4), generator
        )
        for place, (name, one) in enumerate(chosen)
    }


def random_layer(weight: Tensor, rank: int, alpha: float, generator: torch.Generator) -> LoraLayer:
    outputs, *inputs = weight.shape
    down = torch.randn(rank, *inputs, generator=generator)
    up = torch.randn(outputs, rank, *[1] * (len(inputs) - 1), generator=generator)
    return LoraLayer(0.2 * down, 0.2 * up, alpha)


def _pairs(layers: Mapping[str, LoraLayer], down: str, up: str) -> dict[str, Tensor]:
    return {
        name + side: value.contiguous()
        for name, one in layers.items()
        for side, value in ((down, one.down), (up, one.up))
    }


def save_peft(layers: Layers, path: Path) -> Path:
    """A file of `PeftModel.save_pretrained`, whose config stands beside it."""
    prefixed = {f"base_model.model.{name}": one for name, one in layers.items()}
    save_file(_pairs(prefixed, ".lora_A.weight", ".lora_B.weight"), path)
    config = {"r": 8, "lora_alpha": 8, "alpha_pattern": {name: one.alpha for name, one in layers.items()}}
    (path.parent / "adapter_config.json").write_text(json.dumps(config))
    return path


def save_diffusers(components: Mapping[str, Layers], path: Path) -> Path:
    """A file of `save_lora_weights`, with its header entry."""
    tensors: dict[str, Tensor] = {}
    header: dict[str, Any] = {}
    for component, layers in components.items():
        tensors |= _pairs(
            {f"{component}.{name}": one for name, one in layers.items()}, ".lora_A.weight", ".lora_B.weight"
        )
        header |= {f"{component}.r": 8, f"{component}.lora_alpha": 8}
        header[f"{component}.rank_pattern"] = {name: len(one.down) for name, one in layers.items()}
        header[f"{component}.alpha_pattern"] = {name: one.alpha for name, one in layers.items()}
        header[f"{component}.target_modules"] = sorted(layers)
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(header)})
    return path


def save_old_diffusers(layers: Layers, path: Path) -> Path:
    """As diffusers' scripts wrote before PEFT: processors that hold the layers; no alpha, so the scale is 1."""
    named = {f"unet.{_in_processor(name)}": one for name, one in layers.items()}
    save_file(_pairs(named, "_lora.down.weight", "_lora.up.weight"), path)
    return path


def _in_processor(name: str) -> str:
    head, _, last = name.removesuffix(".0").rpartition(".")
    return f"{head}.processor.{last}"


def save_kohya(components: Mapping[str, Layers], path: Path, *, config: Mapping[str, Any] | None = None) -> Path:
    """kohya's names by hand; with `config` the U-Net has the original's modules, as A1111's own and SDXL's files have."""
    tensors: dict[str, Tensor] = {}
    for component, layers in components.items():
        for module, one in layers.items():
            if component == "text_encoder":
                name = f"lora_te_{text_module(module)}"
            else:
                name = f"lora_unet_{module if config is None else original_unet_module(module, config)}"
            tensors |= _pairs({name.replace(".", "_"): one}, ".lora_down.weight", ".lora_up.weight")
            tensors[f"{name.replace('.', '_')}.alpha"] = torch.tensor(one.alpha)
    save_file(tensors, path)
    return path
