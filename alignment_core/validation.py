"""The training metrics on held-out examples, at draws that never change, so that two numbers can be compared."""

from itertools import islice
from typing import TypeVar

import torch

from alignment_core.actors import Actors
from alignment_core.protocols import Method, TimestepStrategy

B = TypeVar("B")


@torch.no_grad()
def validation_metrics(
    actors: Actors, method: Method[B], timesteps: TimestepStrategy, num_batches: int
) -> dict[str, float]:
    """Mean of each metric over the first `num_batches` batches of a method built on the validation split."""
    losses = [method.loss(actors, batch).metrics for batch in islice(method.batches(actors, timesteps, 0), num_batches)]
    return {name: torch.cat([metrics[name] for metrics in losses]).mean().item() for name in losses[0]}
