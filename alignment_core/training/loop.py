"""train(): the loop. Next batch, per-example loss, weight, penalty, backward, step, observe, reference, yield.

Logging, saving, progress and cancelling are the caller's `for` body.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeVar, assert_never

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim import Optimizer

from alignment_core.actors.actors import Actors
from alignment_core.errors import DivergenceError
from alignment_core.events import StepCompleted
from alignment_core.protocols import Method, ReferenceUpdate, StepLoss, TimestepStrategy
from alignment_core.shapes import PerExample
from alignment_core.shares import whole
from alignment_core.timesteps.table import Examples, TimestepTally
from alignment_core.training.metric_means import metric_means
from alignment_core.training.micro_batch import OWN_MEMORY, StepMemory

B = TypeVar("B")
Schedule = Literal["constant", "cosine", "linear"]

RATE_SCALE = "rate_scale"  # of a group of parameters: its learning rate by that of the run
MAX_SKIPPED_STEPS = 20  # fp16: the loss scaler starts at 2^16 and halves at each skip, so no sound run skips more


@dataclass
class StepRecord:
    """What the micro-batches of one optimiser step said, until the step is taken."""

    metrics: list[dict[str, PerExample]] = field(default_factory=list)
    watched: list[Tensor] = field(default_factory=list)

    def add(self, loss: StepLoss, signal: PerExample, weight: PerExample, penalty: PerExample | None) -> None:
        self.metrics.append(loss.metrics if penalty is None else {**loss.metrics, "ref_penalty": penalty.detach()})
        self.watched.append(torch.stack([loss.timesteps.float(), signal, weight], dim=1))

    def everywhere(self, accelerator: Accelerator, norm: Tensor) -> tuple[dict[str, float], Examples, float]:
        """Mean of each metric (`metric_means`), and each example, over the whole step: all micro-batches, all processes; and `norm`.

        All of it in one copy: each is a wait until the device has done everything before it.
        """
        names = list(self.metrics[0])
        table = torch.stack([torch.cat([micro[name] for micro in self.metrics]) for name in names], dim=1)
        gathered = accelerator.gather(torch.cat([table, torch.cat(self.watched)], dim=1))
        assert isinstance(gathered, Tensor)
        copied = torch.cat([gathered.flatten(), norm.to(gathered).view(1)]).cpu()
        *values, timesteps, signal, weight = copied[:-1].view_as(gathered).unbind(dim=1)
        metrics = dict(zip(names, values, strict=True))
        return metric_means(metrics), Examples(timesteps.long(), metrics, signal, weight), copied[-1:].tolist()[0]


@dataclass
class _Pace:
    """What a step took, and when the last one will be over."""

    first_step: int
    total_steps: int
    started: float = field(default_factory=time.monotonic)
    step_started: float = field(default_factory=time.monotonic)

    def begin_step(self) -> None:
        self.step_started = time.monotonic()

    def completed(self, step: int, metrics: dict[str, float]) -> StepCompleted:
        now = time.monotonic()
        return StepCompleted(
            step=step,
            total_steps=self.total_steps,
            metrics=metrics,
            step_seconds=now - self.step_started,
            eta_seconds=(now - self.started) / (step - self.first_step) * (self.total_steps - step),
        )


def finite(metrics: dict[str, float]) -> dict[str, float]:
    """Only the numbers among metrics: JSON has no NaN, and a hole in a curve says it as well."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def train(
    *,
    actors: Actors,
    method: Method[B],
    batches: Iterator[B],
    reference: ReferenceUpdate,
    timesteps: TimestepStrategy,
    tally: TimestepTally,
    optimizer: Optimizer,
    accelerator: Accelerator,
    learning_rate_at: Callable[[int], float],
    max_grad_norm: float,
    first_step: int,
    total_steps: int,
    memory: StepMemory = OWN_MEMORY,
) -> Iterator[StepCompleted]:
    """Take optimiser steps `first_step + 1` to `total_steps`, yielding after each, when every state is that of the step.

    `batches` are the method's micro-batches from `first_step` on. `tally` is told every example of each step. `memory` says whether a
    step fits all processes.

    Raises `DivergenceError` before a step whose loss or gradient is not finite would touch the weights.
    """
    parameters = list(actors.trainable().values())
    record, pace = StepRecord(), _Pace(first_step, total_steps)
    step, num_skipped = first_step, 0
    if step >= total_steps:
        return
    for batch in batches:
        with accelerator.accumulate(actors.trained):
            with memory.of_pass(), actors.compiled():
                _backward(batch, actors, method, reference, timesteps, accelerator, record)
            if not accelerator.sync_gradients:
                continue
            memory.agree()
            actors.average_gradients()
            rate = learning_rate_at(step)
            norm = _whole_norm(accelerator.clip_grad_norm_(parameters, max_grad_norm))
            metrics, examples, grad_norm = record.everywhere(accelerator, norm)
            _refuse_divergence(step + 1, metrics["loss"], grad_norm, has_scaler=accelerator.scaler is not None)
            _update(optimizer, rate)
            actors.follow_weights()
        num_skipped = num_skipped + 1 if accelerator.optimizer_step_was_skipped else 0
        if num_skipped > MAX_SKIPPED_STEPS:
            raise _diverged(step + 1, f"the loss scaler skipped {num_skipped} steps in a row")
        step += 1
        tally.add(examples)
        timesteps.observe(examples.timesteps, examples.signal)
        moved = reference.after_step(actors, step)
        told = {**metrics, **moved, **_step_metrics(accelerator, grad_norm), "learning_rate": rate}
        yield pace.completed(step, finite(told))
        if step == total_steps:
            return
        record = StepRecord()
        pace.begin_step()


def _backward(
    batch: B,
    actors: Actors,
    method: Method[B],
    reference: ReferenceUpdate,
    timesteps: TimestepStrategy,
    accelerator: Accelerator,
    record: StepRecord,
) -> None:
    """One micro-batch: its losses, weighted, with the reference's penalty, and their gradient."""
    loss = method.loss(actors, batch)
    weight = timesteps.loss_weight(loss.timesteps)
    weighted = weight * loss.per_example
    penalty = reference.penalty(actors, loss)
    total = weighted if penalty is None else weighted + penalty
    accelerator.backward(total.mean())
    record.add(loss, loss.signal_against(timesteps.signal_against), weight, penalty)


def _update(optimizer: Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(RATE_SCALE, 1.0)
    optimizer.step()
    optimizer.zero_grad()


def _whole_norm(norm: Tensor | None) -> Tensor:
    return torch.zeros(()) if norm is None else whole(norm)


def _step_metrics(accelerator: Accelerator, grad_norm: float) -> dict[str, float]:
    if accelerator.scaler is None:
        return {"grad_norm": grad_norm}
    return {"grad_norm": grad_norm, "step_skipped": float(accelerator.optimizer_step_was_skipped)}


def _refuse_divergence(step: int, loss: float, grad_norm: float, *, has_scaler: bool) -> None:
    # With fp16 an infinite gradient is how the loss scaler finds its scale: it skips the step by itself.
    if math.isfinite(loss) and (has_scaler or math.isfinite(grad_norm)):
        return
    raise _diverged(step, f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient norm is {grad_norm}")


def _diverged(step: int, what: str) -> DivergenceError:
    return DivergenceError(
        "diverged",
        f"step {step}: {what}; the weights of step {step - 1} were not touched",
        hint="Lower training.learning_rate, raise method.beta, or use bf16 instead of fp16; the last checkpoint is good.",
    )


def learning_rate_schedule(
    kind: Schedule, base: float, *, warmup_steps: int, total_steps: int
) -> Callable[[int], float]:
    """The learning rate of the optimiser step with index `i` (from 0): linear warm-up, then constant, cosine or linear.

    A function of the step and nothing else: there is no scheduler state to save, and no micro-step to count by mistake.
    """

    def rate(index: int) -> float:
        if index < warmup_steps:
            return base * (index + 1) / warmup_steps
        done = (index - warmup_steps) / max(1, total_steps - warmup_steps)
        match kind:
            case "constant":
                return base
            case "cosine":
                return base * 0.5 * (1 + math.cos(math.pi * done))
            case "linear":
                return base * (1 - done)
            case _:
                assert_never(kind)

    return rate
