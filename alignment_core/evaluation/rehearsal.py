"""Before hours of training: can every held-out prompt be scored at all?"""

from collections.abc import Mapping, Sequence

import torch

from alignment_core.errors import AlignmentError
from alignment_core.protocols import RewardModel

_IMAGE_SIZE = 64


@torch.no_grad()
def rehearse(
    rewards: Mapping[str, RewardModel], prompts: Sequence[str], batch_size: int, *, field: str = "evaluation.prompts"
) -> None:
    """Score a grey image for every prompt with every reward.

    Raises `AlignmentError("prompt_not_scorable")` naming the reward and what it says of the prompt.
    """
    images = torch.full((batch_size, 3, _IMAGE_SIZE, _IMAGE_SIZE), 0.5)
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        for name, reward in rewards.items():
            try:
                reward(images[: len(batch)], batch)
            except ValueError as error:
                raise AlignmentError(
                    "prompt_not_scorable",
                    f"the reward {name!r} cannot score a prompt of {field}: {error}",
                    hint=f"choose other {field} or another reward",
                ) from error
