"""The training half of a run: optimiser steps with their validations and checkpoints, as events."""

import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from alignment_core import checkpoints
from alignment_core.errors import AlignmentError
from alignment_core.events import CheckpointSaved, Event, PhaseChanged, ValidationCompleted, WarningRaised
from alignment_core.protocols import Method
from alignment_core.run import Run
from alignment_core.timestep_table import TimestepTally
from alignment_core.trainer import finite, train
from alignment_core.validation import validate

CHECKPOINTS = "checkpoints"


def train_run(run: Run, workdir: Path, first_step: int, started: float) -> Generator[Event, None, None]:
    """Train, validate and save. Whatever ends it early, the last completed step is saved on the way out.

    After a divergence or an error on the GPU the weights are still those of that step, so the checkpoint is good.
    """
    spec, saved_step, step, warned = run.spec, first_step, first_step, False
    limit = spec.resources.max_run_seconds
    tally = TimestepTally(len(run.family.abar), since_step=first_step)
    if first_step < spec.training.steps:
        yield PhaseChanged(phase="training")
    try:
        for event in train(
            actors=run.actors,
            method=run.method,
            reference=run.reference,
            timesteps=run.timesteps,
            tally=tally,
            optimizer=run.optimizer,
            accelerator=run.accelerator,
            learning_rate_at=run.learning_rate_at,
            max_grad_norm=spec.training.max_grad_norm,
            first_step=first_step,
            total_steps=spec.training.steps,
        ):
            step = event.step
            yield event
            if not warned and _has_vanished(event.metrics):
                warned = True
                yield _loss_vanished(step)
            if run.validation is not None and _is_due(step, spec.training.validate_every, spec.training.steps):
                yield from _validate(run, run.validation, step)
            if _is_due(step, spec.training.validate_every or spec.training.steps, spec.training.steps):
                yield tally.table("training", step)
            if _is_due(step, spec.checkpoints.every, spec.training.steps):
                saved_step = step
                yield _save(run, workdir, step)
            if limit is not None and time.monotonic() - started > limit:
                raise AlignmentError("time_limit", f"step {step}: resources.max_run_seconds ({limit}) is over")
    except GeneratorExit:
        if step > saved_step and run.accelerator.is_main_process:
            _write(run, workdir, step)
        raise
    except (AlignmentError, RuntimeError):
        if step > saved_step and run.accelerator.is_main_process:
            yield checkpoint_saved(_write(run, workdir, step), workdir)
        raise


def _has_vanished(metrics: dict[str, float]) -> bool:
    return metrics["loss"] < 0.01 and metrics.get("implicit_accuracy") == 1.0


def _loss_vanished(step: int) -> WarningRaised:
    return WarningRaised(
        code="loss_vanished",
        message="the loss is below 0.01 and every pair is told apart: nothing is left to learn, or the reference moved",
        step=step,
    )


def _validate(run: Run, method: Method[Any], step: int) -> Iterator[Event]:
    metrics, table = validate(run.actors, method, run.timesteps, run.num_validation_examples, step)
    yield ValidationCompleted(step=step, metrics=finite(metrics))
    yield table


def _is_due(step: int, every: int | None, last: int) -> bool:
    return every is not None and (step % every == 0 or step == last)


def _save(run: Run, workdir: Path, step: int) -> CheckpointSaved:
    """Save from the main process; the others wait, and say the same."""
    if run.accelerator.is_main_process:
        _write(run, workdir, step)
    run.accelerator.wait_for_everyone()
    return checkpoint_saved(checkpoints.folder_of(workdir / CHECKPOINTS, step), workdir)


def _write(run: Run, workdir: Path, step: int) -> Path:
    folder = run.save(workdir / CHECKPOINTS, step)
    checkpoints.prune(workdir / CHECKPOINTS, run.spec.checkpoints.keep_last)
    return folder


def checkpoint_saved(folder: Path, workdir: Path) -> CheckpointSaved:
    """The event that announces a complete checkpoint folder."""
    manifest = checkpoints.read_manifest(folder)
    return CheckpointSaved(
        step=manifest.step,
        path=folder.relative_to(workdir).as_posix(),
        kind=manifest.kind,
        is_final=manifest.is_final,
        size_bytes=sum(file.size_bytes for file in manifest.files),
    )
