"""The LoRA of a run that began with another one merged: both as one, for the model as its makers gave it out.

Whoever loads the checkpoint has that model and no other. Training goes on from the adapter by itself, which the training
state keeps.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraConfig
from safetensors.torch import load_file
from torch import Tensor, nn

from alignment_core import checkpoints
from alignment_core.actors.actors import Actors
from alignment_core.actors.reading_network import Part, parts_of
from alignment_core.actors.reference_weights import ADAPTER
from alignment_core.errors import CheckpointError
from alignment_core.families.keys import FamilyKeys, LoraLayer, LoraLayers
from alignment_core.families.merge import joined
from alignment_core.safetensors_files import order_metadata, write_safetensors

OWN = "adapter.safetensors"  # in the training state: the adapter that is trained, without what it stands on
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


def trained_parts(actors: Actors, denoiser: str) -> dict[str, Part]:
    """The networks whose adapters are trained, by component; `denoiser` is the name of the first."""
    return {name or denoiser: part for name, part in parts_of(actors.denoiser).items()}


def joined_layers(actors: Actors, merged: Mapping[str, LoraLayers], denoiser: str) -> dict[str, dict[str, LoraLayer]]:
    """What was merged and what was trained, by component."""
    own = {name: own_layers(part) for name, part in trained_parts(actors, denoiser).items()}
    return {name: joined(merged.get(name, {}), own.get(name, {})) for name in dict.fromkeys([*own, *merged])}


def config_of_adapter(part: Part) -> LoraConfig:
    """What PEFT was asked for."""
    config = part.peft_config[ADAPTER]
    assert isinstance(config, LoraConfig)
    return config


def own_layers(part: Part) -> dict[str, LoraLayer]:
    """The layers of the adapter that is trained."""
    config = config_of_adapter(part)
    tensors: dict[str, Tensor] = get_peft_model_state_dict(part, adapter_name=ADAPTER)
    modules = [key.removesuffix(DOWN) for key in tensors if key.endswith(DOWN)]
    return {name: LoraLayer(tensors[name + DOWN], tensors[name + UP], float(config.lora_alpha)) for name in modules}


def save_own(actors: Actors, folder: Path) -> None:
    """Keep the adapters by themselves in the training state of a checkpoint that is being written."""
    tensors = {
        f"{name}.{key}" if name else key: value
        for name, part in trained_parts(actors, "").items()
        for key, value in get_peft_model_state_dict(part, adapter_name=ADAPTER).items()
    }
    checkpoints.save_tensors(folder / checkpoints.STATE / OWN, checkpoints.on_host(tensors))


def load_own(actors: Actors, path: Path, denoiser: str) -> None:
    """Put the adapters of a file back, by component; what names none is of the denoiser. Raises `CheckpointError`."""
    parts = trained_parts(actors, denoiser)
    layers: dict[str, dict[str, Tensor]] = {name: {} for name in parts}
    for key, value in load_file(path).items():
        name, _, inside = key.partition(".")
        component, module = (name, inside) if name in parts else (denoiser, key)
        layers[component][module] = value
    for component, part in parts.items():
        outcome = set_peft_model_state_dict(part, layers[component], adapter_name=ADAPTER)
        if outcome is not None and outcome.unexpected_keys:
            raise CheckpointError("checkpoint_altered", f"{path}: unexpected weight {outcome.unexpected_keys[0]!r}")


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
    written: dict[str, LoraLayer] = {}
    for component, updates in layers.items():
        written |= keys.to_kohya(component, updates, configs[component])
    found: dict[str, Tensor] = {}
    for name, layer in written.items():
        found[f"{name}.lora_down.weight"], found[f"{name}.lora_up.weight"] = layer.down, layer.up
        found[f"{name}.alpha"] = torch.tensor(layer.alpha)
    ranks, alphas = {len(layer.down) for layer in written.values()}, {layer.alpha for layer in written.values()}
    shapes = {"ss_network_dim": _one_of(ranks), "ss_network_alpha": _one_of(alphas)}
    write_safetensors(path, found, {**metadata, **shapes})


def _one_of(values: Collection[int] | Collection[float]) -> str:
    """What all layers have, in kohya's words."""
    return str(next(iter(values))) if len(values) == 1 else "Dynamic"


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
