"""The training metrics on held-out examples, at draws that never change, so that two numbers can be compared."""

from typing import TypeVar

import torch

from alignment_core.actors.actors import Actors
from alignment_core.events import TimestepTable
from alignment_core.protocols import Method, StepLoss, TimestepStrategy
from alignment_core.timesteps.table import Examples, TimestepTally
from alignment_core.training.metric_means import metric_means

B = TypeVar("B")


@torch.no_grad()
def validate(
    actors: Actors, method: Method[B], timesteps: TimestepStrategy, num_examples: int, step: int
) -> tuple[dict[str, float], TimestepTable]:
    """Means and by-timestep table of the first `num_examples` examples of a method built on the validation split.

    An epoch holds every pair once, and the batch that runs over its end is cut, so with `num_examples` pairs each counts
    once.
    """
    losses: list[StepLoss] = []
    for batch in method.batches(actors, timesteps, 0):
        losses.append(method.loss(actors, batch))
        if sum(len(loss.per_example) for loss in losses) >= num_examples:
            break
    metrics = {name: torch.cat([loss.metrics[name] for loss in losses])[:num_examples] for name in losses[0].metrics}
    t = torch.cat([loss.timesteps for loss in losses])[:num_examples]
    tally = TimestepTally(actors.family.path.num_timesteps)
    tally.add(
        Examples(
            t.cpu(),
            {name: value.cpu() for name, value in metrics.items()},
            torch.cat([loss.signal for loss in losses])[:num_examples].cpu(),
            timesteps.loss_weight(t).cpu(),
        )
    )
    return metric_means(metrics), tally.table("validation", step)
