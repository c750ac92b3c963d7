"""Small samplers and rewards with known answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class NoiseSampler:
    """Seeded noise in [0.2, 0.6] plus `offset`; remembers what it was asked for."""

    offset: float = 0.0
    size: int = 16
    asked: list[tuple[str, int]] = field(default_factory=list)

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        assert len(prompts) == len(seeds)
        self.asked += zip(prompts, seeds, strict=True)
        return torch.stack([self._draw(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)])

    def _draw(self, prompt: str, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed + sum(map(ord, prompt)))
        return 0.2 + 0.4 * torch.rand(3, self.size, self.size, generator=generator) + self.offset


@dataclass
class FlatSampler:
    """One colour everywhere."""

    color: tuple[float, float, float]
    size: int = 16

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        assert len(prompts) == len(seeds)
        return torch.tensor(self.color).view(1, 3, 1, 1).repeat(len(prompts), 1, self.size, self.size)


class PromptLength:
    """Scores the prompt, not the image."""

    differentiable = False

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        assert len(images) == len(prompts)
        return torch.tensor([float(len(prompt)) for prompt in prompts])


class OnlyShortPrompts:
    """Refuses prompts of more than ten letters."""

    differentiable = False

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        if too_long := [prompt for prompt in prompts if len(prompt) > 10]:
            raise ValueError(f"prompt {too_long[0]!r} is too long")
        return torch.zeros(len(images))
