"""Before hours of training: can every held-out prompt be scored at all?"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from alignment_core.errors import AlignmentError
from alignment_core.protocols import RewardModel

_IMAGE_SIZE = 64


@torch.no_grad()
def rehearse(
    rewards: Mapping[str, RewardModel], prompts: Sequence[str], batch_size: int, *, field: str = "evaluation.prompts"
) -> None:
    """Score a grey image for every prompt with every reward.

    Raises `AlignmentError("prompt_not_scorable")` naming the reward and what it says of the prompt, or what `judging` does.
    """
    images = torch.full((batch_size, 3, _IMAGE_SIZE, _IMAGE_SIZE), 0.5)
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        for name, reward in rewards.items():
            try:
                with judging(name):
                    reward(images[: len(batch)], batch)
            except ValueError as error:
                raise AlignmentError(
                    "prompt_not_scorable",
                    f"the reward {name!r} cannot score a prompt of {field}: {error}",
                    hint=f"choose other {field} or another reward",
                ) from error


@contextmanager
def judging(name: str) -> Iterator[None]:
    """A reward that fails inside in a way that says nothing of the prompt or the machine is broken: `AlignmentError("reward_broken")`."""
    try:
        yield
    except (ValueError, AlignmentError, MemoryError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:
        raise reward_broken(name, f"{type(error).__name__}: {error}") from error


def reward_broken(name: str, why: str) -> AlignmentError:
    return AlignmentError(
        "reward_broken",
        f"the reward {name!r} cannot judge pictures: {why}",
        hint="Look at the reward's weights and settings, or leave it out; nothing was trained yet.",
    )
