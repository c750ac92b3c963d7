"""The LoRA of a run that began with another one merged: both as one, for the model as its makers gave it out.

Whoever loads the checkpoint has that model and no other. Training goes on from the adapter by itself, which the training
state keeps.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from peft import get_peft_model_state_dict
from peft.tuners.lora import LoraConfig
from torch import Tensor, nn

from alignment_core import checkpoints
from alignment_core.actors.actors import ADAPTER, Actors
from alignment_core.families.keys import FamilyKeys, LoraLayer, LoraLayers
from alignment_core.families.merge import joined
from alignment_core.safetensors_files import order_metadata, write_safetensors

OWN = "adapter.safetensors"  # in the training state: the adapter that is trained, without what it stands on
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


def joined_layers(actors: Actors, merged: Mapping[str, LoraLayers], denoiser: str) -> dict[str, dict[str, LoraLayer]]:
    """What was merged and what was trained, by component."""
    own = own_layers(actors)
    others = {name: joined(layers, {}) for name, layers in merged.items() if name != denoiser}
    return {denoiser: joined(merged.get(denoiser, {}), own), **others}


def own_layers(actors: Actors) -> dict[str, LoraLayer]:
    """The layers of the adapter that is trained."""
    config: LoraConfig = actors.denoiser.peft_config[ADAPTER]
    tensors: dict[str, Tensor] = get_peft_model_state_dict(actors.denoiser, adapter_name=ADAPTER)
    modules = [key.removesuffix(DOWN) for key in tensors if key.endswith(DOWN)]
    return {name: LoraLayer(tensors[name + DOWN], tensors[name + UP], float(config.lora_alpha)) for name in modules}


def save_own(actors: Actors, folder: Path) -> None:
    """Keep the adapter by itself in the training state of a checkpoint that is being written."""
    tensors = get_peft_model_state_dict(actors.denoiser, adapter_name=ADAPTER)
    checkpoints.save_tensors(folder / checkpoints.STATE / OWN, tensors)


def write_diffusers(layers: Mapping[str, LoraLayers], path: Path) -> None:
    """Write the file that `pipeline.load_lora_weights` reads, each layer's rank and alpha in its header."""
    saved: dict[str, Any] = {}
    for component, updates in layers.items():
        if updates:
            saved[f"{component}_lora_layers"] = tensors_of(updates)
            saved[f"{component}_lora_adapter_metadata"] = described_layers(updates)
    # SD's files are the same, without a second text encoder.
    StableDiffusionXLPipeline.save_lora_weights(path.parent, weight_name=path.name, safe_serialization=True, **saved)
    order_metadata(path)


def write_kohya(
    layers: Mapping[str, LoraLayers],
    keys: FamilyKeys,
    configs: Mapping[str, Mapping[str, Any]],
    path: Path,
    metadata: Mapping[str, str],
) -> None:
    """Write the file that ComfyUI, A1111 and kohya's scripts read."""
    found: dict[str, Tensor] = {}
    for component, updates in layers.items():
        for name, layer in keys.to_kohya(component, updates, configs[component]).items():
            found[f"{name}.lora_down.weight"], found[f"{name}.lora_up.weight"] = layer.down, layer.up
            found[f"{name}.alpha"] = torch.tensor(layer.alpha)
    ranks = {len(layer.down) for updates in layers.values() for layer in updates.values()}
    shown = str(ranks.pop()) if len(ranks) == 1 else "Dynamic"
    write_safetensors(path, found, {**metadata, "ss_network_dim": shown, "ss_network_alpha": shown})


def tensors_of(layers: LoraLayers) -> dict[str, nn.Module | Tensor]:
    """Both factors of each layer under PEFT's names."""
    found: dict[str, nn.Module | Tensor] = {}
    for module, layer in layers.items():
        found[module + DOWN], found[module + UP] = layer.down, layer.up
    return found


def described_layers(layers: LoraLayers) -> dict[str, Any]:
    """PEFT's config of layers whose alpha is their rank, whatever that is."""
    ranks = {module: len(layer.down) for module, layer in layers.items()}
    highest = max(ranks.values())
    others = {module: rank for module, rank in ranks.items() if rank != highest}
    config = LoraConfig(r=highest, lora_alpha=highest, rank_pattern=others, alpha_pattern=dict(others))
    return {**config.to_dict(), "target_modules": sorted(layers)}
