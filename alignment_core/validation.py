"""The training metrics on held-out examples, at draws that never change, so that two numbers can be compared."""

from typing import TypeVar

import torch
from torch import Tensor

from alignment_core.actors import Actors
from alignment_core.protocols import Method, TimestepStrategy

B = TypeVar("B")


@torch.no_grad()
def validation_metrics(
    actors: Actors, method: Method[B], timesteps: TimestepStrategy, num_examples: int
) -> dict[str, float]:
    """Mean of each metric over the first `num_examples` examples of a method built on the validation split.

    An epoch holds every pair once, and the batch that runs over its end is cut, so with `num_examples` pairs each counts
    once.
    """
    losses: list[dict[str, Tensor]] = []
    for batch in method.batches(actors, timesteps, 0):
        losses.append(method.loss(actors, batch).metrics)
        if sum(len(metrics["loss"]) for metrics in losses) >= num_examples:
            break
    return {name: torch.cat([metrics[name] for metrics in losses])[:num_examples].mean().item() for name in losses[0]}
