"""The training metrics on held-out examples, at draws that never change, so that two numbers can be compared."""

from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

from alignment_core.actors.actors import Actors
from alignment_core.events import TimestepTable
from alignment_core.protocols import Method, TimestepStrategy
from alignment_core.ranks import ALONE, Ranks
from alignment_core.shapes import PerExample, Timesteps
from alignment_core.timesteps.table import Examples, TimestepTally
from alignment_core.training.metric_means import metric_means

B = TypeVar("B")


@torch.no_grad()
def validate(
    actors: Actors,
    method: Method[B],
    timesteps: TimestepStrategy,
    num_examples: int,
    step: int,
    ranks: Ranks = ALONE,
) -> tuple[dict[str, float], TimestepTable]:
    """Means and by-timestep table of the first `num_examples` examples of a method built on the validation split.

    An epoch holds every pair once, and the batch that runs over its end is cut, so with `num_examples` pairs each counts
    once.
    """
    found: list[_Measured] = []
    for batch in method.batches(actors, timesteps, 0):
        found += ranks.everywhere(partial(_measured, actors, method, batch))
        if sum(len(one.signal) for one in found) >= num_examples:
            break
    metrics = {name: torch.cat([one.metrics[name] for one in found])[:num_examples] for name in found[0].metrics}
    t = torch.cat([one.timesteps for one in found])[:num_examples]
    signal = torch.cat([one.signal for one in found])[:num_examples]
    tally = TimestepTally(actors.family.path.num_timesteps)
    tally.add(Examples(t, metrics, signal, timesteps.loss_weight(t)))
    return metric_means(metrics), tally.table("validation", step)


@dataclass(frozen=True)
class _Measured:
    """What is kept of a batch's losses, on the CPU."""

    timesteps: Timesteps
    signal: PerExample
    metrics: dict[str, PerExample]


def _measured(actors: Actors, method: Method[B], batch: B) -> _Measured:
    loss = method.loss(actors, batch)
    return _Measured(
        loss.timesteps.cpu(), loss.signal.cpu(), {name: value.cpu() for name, value in loss.metrics.items()}
    )
