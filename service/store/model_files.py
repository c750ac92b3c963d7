"""What a diffusers folder says of its model in JSON and in the headers of its weights: read without loading anything."""

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

LONGEST_HEADER_BYTES = 64 * 2**20
LAYER_DIMENSIONS = (2, 4)  # of the weights of linear layers and of convolutions, which a LoRA can be added to
TRAINING_TIMESTEPS = 1000  # diffusers' value where a scheduler's config has none


@dataclass(frozen=True)
class ModelFiles:
    """What could be read; None where it could not, as the folder may be on the workers' machines alone."""

    layers: frozenset[str] | None
    num_timesteps: int | None
    prediction_type: str | None

    def has_layer(self, suffix: str) -> bool:
        """Whether a LoRA for this suffix would find a layer."""
        return any(name == suffix or name.endswith(f".{suffix}") for name in self.layers or ())


def read_model_files(folder: Path) -> ModelFiles:
    """The layers of the denoiser and what the scheduler was trained with."""
    scheduler = _json(folder / "scheduler" / "scheduler_config.json")
    if scheduler is None:
        return ModelFiles(_layers(folder / "unet"), None, None)
    timesteps, prediction = scheduler.get("num_train_timesteps", TRAINING_TIMESTEPS), scheduler.get("prediction_type")
    return ModelFiles(
        layers=_layers(folder / "unet"),
        num_timesteps=timesteps if isinstance(timesteps, int) else None,
        prediction_type=prediction if isinstance(prediction, str) else None,
    )


def _layers(folder: Path) -> frozenset[str] | None:
    files = sorted(folder.glob("*.safetensors"))
    try:
        found = [_layers_of(file, file.stat().st_mtime_ns) for file in files]
    except (OSError, ValueError):
        return None
    return frozenset[str]().union(*found) if found else None


@lru_cache(maxsize=64)
def _layers_of(file: Path, _modified_ns: int) -> frozenset[str]:
    """Names of what has a weight of a layer's dimensions; `ValueError` for what is no safetensors file."""
    with file.open("rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else LONGEST_HEADER_BYTES + 1
        if length > LONGEST_HEADER_BYTES:
            raise ValueError(f"{file} is no safetensors file")
        header = json.loads(opened.read(length))
    return frozenset(_layer_names(header.items()))


def _layer_names(entries: Iterable[tuple[str, Any]]) -> Iterable[str]:
    for name, entry in entries:
        if name.endswith(".weight") and len(entry.get("shape", ())) in LAYER_DIMENSIONS:
            yield name.removesuffix(".weight")


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
