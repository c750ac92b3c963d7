"""Several rewards as one number."""

from collections.abc import Sequence

import torch

from alignment_core.protocols import RewardModel
from alignment_core.shapes import Images, PerExample


class WeightedSum:
    """Sum over the parts of weight times score, float32 [B]; differentiable where every part is."""

    def __init__(self, parts: Sequence[tuple[float, RewardModel]]) -> None:
        assert parts, "a sum needs a part"
        self._parts = tuple(parts)

    @property
    def differentiable(self) -> bool:
        return all(reward.differentiable for _, reward in self._parts)

    def __call__(self, images: Images, prompts: Sequence[str]) -> PerExample:
        return torch.stack([weight * reward(images, prompts) for weight, reward in self._parts]).sum(dim=0)
