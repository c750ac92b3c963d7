"""One part of a folder as a module, whole: what the families of transformers load in the same way."""

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from alignment_core.families.source import ModelFolder


def fresh_scheduler(scheduler: FlowMatchEulerDiscreteScheduler) -> FlowMatchEulerDiscreteScheduler:
    """The same levels in a scheduler that has not stepped yet."""
    return FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)  # pyright: ignore[reportReturnType]


def in_wide_half(dtype: torch.dtype) -> torch.dtype:
    """The half precision of T5, whose activations overflow in float16."""
    return torch.bfloat16 if dtype is torch.float16 else dtype


def load_tokenizer(folder: ModelFolder, part: str, kind: Any) -> Any:
    return kind.from_pretrained(folder.path / part, local_files_only=True)
