"""A reward whose every score is a number: anything else would pass through averages and advantages unseen."""

from collections.abc import Sequence

import torch

from alignment_core.errors import AlignmentError
from alignment_core.protocols import RewardModel
from alignment_core.shapes import Images, PerExample


class FiniteReward:
    """`reward` under its name, on its device; NaN or infinite scores raise `AlignmentError("reward_not_finite")`."""

    def __init__(self, name: str, reward: RewardModel, device: torch.device) -> None:
        self.name = name
        self._reward = reward
        self._device = device

    @property
    def differentiable(self) -> bool:
        return self._reward.differentiable

    def __call__(self, images: Images, prompts: Sequence[str]) -> PerExample:
        scores = self._reward(images.to(self._device), prompts)
        finite = scores.isfinite()
        if not finite.all():
            row = int((~finite).nonzero()[0].item())
            raise AlignmentError(
                "reward_not_finite",
                f"the reward {self.name!r} gave {scores[row].item()} for the prompt {prompts[row]!r}; expected a number",
            )
        return scores
