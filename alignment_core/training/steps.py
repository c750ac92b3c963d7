"""Optimiser steps from the batches of a run: the first is measured, and one that is too large for the memory is cut up smaller."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any

from alignment_core.events import Event, StepCompleted
from alignment_core.timesteps.table import TimestepTally
from alignment_core.training.compiling import compile_for, may_compile
from alignment_core.training.logit_error import DTYPES, measure
from alignment_core.training.loop import train
from alignment_core.training.micro_batch import OWN_MEMORY, MicroBatchTooLarge, Split
from alignment_core.training.run import Run
from alignment_core.training.throughput import flops_of


def begin_batches(run: Run) -> Generator[Event, None, Iterator[Any]]:
    """The batches of a run, whose first is looked at on a GPU, in half precision, or to compile: what it costs, how exact its logits are."""
    batches = _batches(run)
    is_measured = run.state.step == 0 and run.precision != "fp32"
    # What is remembered of the reference would have to be told apart from what is computed.
    is_counted = run.accelerator.device.type == "cuda" and run.reference_errors is None
    if not (is_measured or is_counted or may_compile(run)):
        return batches
    while True:
        try:
            with run.meter.waiting.running():
                first = next(batches)
            with run.memory.of_pass():
                if is_counted:
                    run.meter.flops_per_example = flops_of(run.method, run.actors, first, DTYPES[run.precision])
            run.memory.agree()
            # What several processes do together none can leave: memory that runs out in it ends the run.
            with OWN_MEMORY.of_pass() if run.ranks.count == 1 else nullcontext():
                found = _exactness(run, first) if is_measured else ()
                if may_compile(run):
                    yield from compile_for(run, first)
            break
        except MicroBatchTooLarge as error:
            smaller = _smaller(run, error)
        run.use_split(smaller)
        batches = _batches(run)
    yield from found
    return _beginning_with(first, batches)


def _beginning_with(first: Any, batches: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from batches


def _close(batches: Iterator[Any]) -> None:
    """Nothing is made ahead for steps that are not taken."""
    if isinstance(batches, Generator):
        batches.close()


def _exactness(run: Run, batch: Any) -> Sequence[Event]:
    measured, warning = measure(run.actors, run.method, batch, run.precision, run.spec.seed, run.ranks)
    return [measured] if warning is None else [measured, warning]


def steps_within_memory(run: Run, tally: TimestepTally, batches: Iterator[Any]) -> Iterator[StepCompleted]:
    """Steps until the last one; one that is too large for the memory is cut up smaller, if that is for us to decide."""
    while True:
        try:
            yield from _steps(run, tally, run.meter.timed(batches))
            return
        except MicroBatchTooLarge as error:
            smaller = _smaller(run, error)
        finally:
            _close(batches)
        run.use_split(smaller)  # the exception is gone by now, and with it what it held of the pass
        batches = _batches(run)


def first_steps(run: Run, num: int) -> Iterator[StepCompleted]:
    """So many steps from where the run is, of which nobody is told but the caller, and after which nothing is done."""
    tally = TimestepTally(run.family.path.num_timesteps, since_step=run.state.step)
    yield from islice(steps_within_memory(run, tally, _batches(run)), num)


def _smaller(run: Run, error: MicroBatchTooLarge) -> Split:
    """The next smaller split; raises `error` where there is none."""
    run.actors.forget_recordings()  # of the pass that was too large
    smaller = run.split.halved() if run.finds_split else None
    if smaller is None:
        raise error
    return smaller


def _batches(run: Run) -> Iterator[Any]:
    return run.method.batches(run.actors, run.timesteps, run.state.step)


def _steps(run: Run, tally: TimestepTally, batches: Iterator[Any]) -> Iterator[StepCompleted]:
    return train(
        actors=run.actors,
        method=run.method,
        batches=batches,
        reference=run.reference,
        timesteps=run.timesteps,
        tally=tally,
        optimizer=run.optimizer,
        accelerator=run.accelerator,
        learning_rate_at=run.learning_rate_at,
        max_grad_norm=run.spec.training.max_grad_norm,
        first_step=run.state.step,
        total_steps=run.state.total_steps,
        memory=run.memory,
    )
