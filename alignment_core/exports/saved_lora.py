"""The LoRA of a checkpoint as updates of layers, from the file that training saved."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from alignment_core.errors import CheckpointError, ModelError
from alignment_core.families.keys import LoraLayer
from alignment_core.families.merge import update_of

LORA_FILE = "pytorch_lora_weights.safetensors"
METADATA = "lora_adapter_metadata"  # diffusers' name for the header entry with each component's `LoraConfig`
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


class SavedLora:
    """By component (`unet`, `text_encoder` ...): its layers, and the config that PEFT made them with."""

    def __init__(self, path: Path) -> None:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  no mapping
            entries = json.loads((file.metadata() or {}).get(METADATA, "{}"))
        names = sorted({key.partition(".")[0] for key in tensors})
        self.configs: dict[str, dict[str, Any]] = {name: _inside(entries, name) for name in names}
        self.components = {name: _layers(_inside(tensors, name), self.configs[name], path) for name in names}


def _inside(entries: Mapping[str, Any], component: str) -> dict[str, Any]:
    return {key.partition(".")[2]: value for key, value in entries.items() if key.startswith(f"{component}.")}


def _layers(tensors: Mapping[str, Tensor], config: Mapping[str, Any], path: Path) -> dict[str, LoraLayer]:
    if "lora_alpha" not in config:
        raise CheckpointError("checkpoint_invalid", f"{path.name}: its header does not say alpha")
    modules = [key.removesuffix(DOWN) for key in tensors if key.endswith(DOWN)]
    if 2 * len(modules) != len(tensors):
        raise CheckpointError("checkpoint_invalid", f"{path.name}: expected an A and a B of each layer")
    alphas = config.get("alpha_pattern") or {}
    return {
        module: LoraLayer(tensors[module + DOWN], tensors[module + UP], float(alphas.get(module, config["lora_alpha"])))
        for module in modules
    }


def merge_into(weights: dict[str, Tensor], layers: Mapping[str, LoraLayer]) -> set[str]:
    """Add the updates to the weights that are there, in their own precision; the modules that were found.

    Sums are float32: in half precision most updates are smaller than the last digit of a weight, and would be rounded twice.
    """
    found = set()
    for module, layer in layers.items():
        if (key := _weight_of(weights, module)) is not None:
            weight, update = weights[key], update_of(layer)
            if update.numel() != weight.numel():
                shapes = f"has the shape {list(weight.shape)}, and the one that was trained {list(update.shape)}"
                raise ModelError("base_model_differs", f"the base model's layer {module!r} {shapes}")
            weights[key] = (weight.float() + update.reshape(weight.shape)).to(weight.dtype)
            found.add(module)
    return found


def _weight_of(weights: Mapping[str, Tensor], module: str) -> str | None:
    """The key of the module's weight; text encoders have `text_model.` before their modules in older files alone."""
    bare = module.removeprefix("text_model.")
    names = (f"{name}.weight" for name in (module, bare, f"text_model.{bare}"))
    return next((name for name in names if name in weights), None)
