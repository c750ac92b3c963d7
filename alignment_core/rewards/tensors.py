"""Named tensors in a safetensors file, and whether they are the expected ones."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from alignment_core.errors import ModelError

Shape = tuple[int, ...]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file in float32, on the CPU. Raises `ModelError` naming the file."""
    if not path.is_file():
        raise ModelError("reward_not_found", f"{path}: expected a safetensors file")
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise ModelError("reward_invalid", f"{path}: not a safetensors file: {error}") from error


def check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Shape]) -> None:
    """Raises ValueError naming the first tensor that is missing, unknown, or of another shape."""
    if missing := sorted(set(expected) - set(tensors)):
        raise ValueError(f"lacks {len(missing)} expected tensors, {missing[0]} first")
    if unknown := sorted(set(tensors) - set(expected)):
        raise ValueError(f"holds {len(unknown)} unknown tensors, {unknown[0]} first")
    for name, shape in expected.items():
        if tensors[name].shape != torch.Size(shape):
            raise ValueError(f"{name} has the shape {list(tensors[name].shape)}, expected {list(shape)}")
