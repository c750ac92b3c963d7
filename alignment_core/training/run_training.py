"""The training half of a run: optimiser steps with their validations, probes and checkpoints, as events."""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from alignment_core import checkpoints
from alignment_core.errors import AlignmentError, DivergenceError
from alignment_core.evaluation.probe import HeldOutProbe
from alignment_core.evaluation.probe_figures import ProbeFigures
from alignment_core.events import (
    CheckpointSaved,
    Event,
    PhaseChanged,
    ProbeCompleted,
    ResultSelected,
    StepCompleted,
    ValidationCompleted,
)
from alignment_core.protocols import Method
from alignment_core.timesteps.table import TimestepTally
from alignment_core.training.loop import finite, train
from alignment_core.training.result import choose_result, forget_missing, load_result
from alignment_core.training.run import Run
from alignment_core.training.validation import validate

CHECKPOINTS = "checkpoints"


@dataclass
class Place:
    """How far the run has got: the last completed step, and the last one that was saved."""

    step: int
    saved_step: int


def train_run(
    run: Run, probe: HeldOutProbe | None, workdir: Path, first_step: int, started: float
) -> Generator[Event, None, ResultSelected]:
    """Train, validate, probe and save; returns which checkpoint is the result, whose weights the policy then has.

    Whatever ends it early, the last completed step is saved on the way out: after a divergence or an error on the GPU the
    weights are still those of that step, so the checkpoint is good.
    """
    place = Place(first_step, first_step)
    try:
        yield from forget_missing(run, workdir / CHECKPOINTS)
        yield from _warnings(run)
        try:
            if probe is not None and _is_unprobed(run, first_step):
                yield from _probe_and_save(run, probe, workdir, place)
            if run.watch.state.ending is None and first_step < run.spec.training.steps:
                yield PhaseChanged(phase="training")
                yield from _train(run, probe, workdir, place, started)
        except DivergenceError as error:
            ends_well = run.watch.observe_divergence(place.step + 1, error.message)
            yield from _warnings(run)
            if not ends_well:
                raise
        return (yield from _finish(run, workdir, place))
    except GeneratorExit:
        if place.step > place.saved_step and run.accelerator.is_main_process:
            _write(run, workdir, place.step)
        raise
    except (AlignmentError, RuntimeError):
        if place.step > place.saved_step and run.accelerator.is_main_process:
            yield checkpoint_saved(_write(run, workdir, place.step), workdir)
        raise


# --- steps ---------------------------------------------------------------------------------------------------------


def _train(run: Run, probe: HeldOutProbe | None, workdir: Path, place: Place, started: float) -> Iterator[Event]:
    """Steps until the last one, or until a guard ends the training; the last one is left to be saved."""
    spec, limit = run.spec, run.spec.resources.max_run_seconds
    tally = TimestepTally(len(run.family.abar), since_step=place.step)
    for event in _steps(run, tally, place.step):
        place.step = event.step
        run.watch.observe_step(event.step, event.metrics)
        yield event
        yield from _warnings(run)
        last = spec.training.steps if run.watch.state.ending is None else event.step
        if run.validation is not None and _is_due(event.step, spec.training.validate_every, last):
            yield from _validate(run, run.validation, event.step)
        if _is_due(event.step, spec.training.validate_every or last, last):
            yield tally.table("training", event.step)
        if probe is not None and _is_due(event.step, spec.evaluation.every, last) and not _is_rolled_back(run):
            yield from _probe_and_save(run, probe, workdir, place)
        if run.watch.state.ending is not None:
            return
        if limit is not None and event.step < last and _is_over(limit, started):
            raise AlignmentError("time_limit", f"step {event.step}: resources.max_run_seconds ({limit}) is over")
        if event.step % spec.checkpoints.every == 0 and place.saved_step < event.step < last:
            yield _save(run, workdir, place)


def _is_over(limit: int, started: float) -> bool:
    """Whether the run had its time, by the main process's clock: a rank that left alone would have the others wait for it."""
    (is_over,) = broadcast_object_list([time.monotonic() - started > limit])  # in one process it is what it was
    return is_over


def _steps(run: Run, tally: TimestepTally, first_step: int) -> Iterator[StepCompleted]:
    return train(
        actors=run.actors,
        method=run.method,
        reference=run.reference,
        timesteps=run.timesteps,
        tally=tally,
        optimizer=run.optimizer,
        accelerator=run.accelerator,
        learning_rate_at=run.learning_rate_at,
        max_grad_norm=run.spec.training.max_grad_norm,
        first_step=first_step,
        total_steps=run.spec.training.steps,
    )


def _is_due(step: int, every: int | None, last: int) -> bool:
    return every is not None and (step % every == 0 or step == last)


def _warnings(run: Run) -> Iterator[Event]:
    """What the guards have to say; what a run that left could not say any more, its next attempt says first."""
    yield from run.watch.take_unsaid()


def _validate(run: Run, method: Method[Any], step: int) -> Iterator[Event]:
    metrics, table = validate(run.actors, method, run.timesteps, run.num_validation_examples, step)
    yield ValidationCompleted(step=step, metrics=finite(metrics))
    yield table


# --- probes --------------------------------------------------------------------------------------------------------


def _is_unprobed(run: Run, step: int) -> bool:
    """Whether the run was left between a step and its probe."""
    state, spec = run.watch.state, run.spec
    last = spec.training.steps if state.ending is None else step
    is_open = state.result_step is None and not _is_rolled_back(run)
    return step > 0 and is_open and state.probed_step < step and _is_due(step, spec.evaluation.every, last)


def _is_rolled_back(run: Run) -> bool:
    ending = run.watch.state.ending
    return ending is not None and ending.action == "rollback"


def _probe_and_save(run: Run, probe: HeldOutProbe, workdir: Path, place: Place) -> Iterator[Event]:
    """Probe the policy, and save it when it is the best so far; the last step is saved by whoever ends the training."""
    yield PhaseChanged(phase="sampling")
    found = None
    if run.accelerator.is_main_process:
        found = yield from _measured(probe, place.step)
    (found,) = broadcast_object_list([found])  # in one process it is what it was
    yield PhaseChanged(phase="training")
    if isinstance(found, str):
        if not run.watch.observe_divergence(place.step, found):
            raise DivergenceError("diverged", found)
        yield from _warnings(run)
        return
    assert isinstance(found, ProbeFigures)
    is_best = run.watch.observe_probe(found)
    yield ProbeCompleted(
        step=place.step, num_prompts=found.num_prompts, metrics=finite(found.metrics()), is_best=is_best
    )
    yield from _warnings(run)
    if is_best and place.step < run.spec.training.steps and run.watch.state.ending is None:
        yield _save(run, workdir, place)


def _measured(probe: HeldOutProbe, step: int) -> Generator[Event, None, ProbeFigures | str]:
    """The figures, or what the policy drew instead of images: every process hears of either."""
    try:
        return (yield from probe.measure(step))
    except DivergenceError as error:
        return error.message


# --- checkpoints and the result ------------------------------------------------------------------------------------


def _finish(run: Run, workdir: Path, place: Place) -> Generator[Event, None, ResultSelected]:
    """Choose the result, save the last step with that choice, and give the policy the result's weights."""
    state = run.watch.state
    if state.result_step is None:
        state.result_step = choose_result(run, workdir / CHECKPOINTS, place.step)
        yield _save(run, workdir, place)
    result = load_result(run, workdir, place.step)
    yield result
    return result


def _save(run: Run, workdir: Path, place: Place) -> CheckpointSaved:
    """Save from the main process; the others wait, and say the same."""
    if run.accelerator.is_main_process:
        _write(run, workdir, place.step)
    place.saved_step = place.step
    run.accelerator.wait_for_everyone()
    return checkpoint_saved(checkpoints.folder_of(workdir / CHECKPOINTS, place.step), workdir)


def _write(run: Run, workdir: Path, step: int) -> Path:
    """The best one and the result stay, however old they are."""
    folder, state = run.save(workdir / CHECKPOINTS, step), run.watch.state
    kept = {step for step in (state.best and state.best.step, state.result_step) if step is not None}
    checkpoints.prune(workdir / CHECKPOINTS, run.spec.checkpoints.keep_last, kept)
    return folder


def checkpoint_saved(folder: Path, workdir: Path) -> CheckpointSaved:
    """The event that announces a complete checkpoint folder."""
    manifest = checkpoints.read_manifest(folder)
    return CheckpointSaved(
        step=manifest.step,
        path=folder.relative_to(workdir).as_posix(),
        kind=manifest.kind,
        is_final=manifest.is_final,
        is_best=manifest.is_best,
        result_step=manifest.result_step,
        size_bytes=sum(file.size_bytes for file in manifest.files),
    )
