"""Prompts that a large text encoder has read: each once, as long as there is room."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

MOST_REMEMBERED = 512  # prompts: of a T5 some 2 to 4 MB each in half precision


class Remembered:
    """What `read` made of the last prompts, a value or more for each, the oldest forgotten first."""

    def __init__(self, read: Callable[[Sequence[str]], Mapping[str, Mapping[str, Tensor]]]) -> None:
        self._read = read
        self._kept: dict[str, Mapping[str, Tensor]] = {}

    def of(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """What was read of the prompts, `[B, ...]` each; those that are not remembered are read now, each once."""
        if unread := [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._kept]:
            self._kept |= self._read(unread)
        found = [self._kept[prompt] for prompt in prompts]
        while len(self._kept) > MOST_REMEMBERED:
            del self._kept[next(iter(self._kept))]
        return {name: torch.stack([one[name] for one in found]) for name in found[0]}
