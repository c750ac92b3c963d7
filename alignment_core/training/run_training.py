"""The training half of a run: optimiser steps with their validations, probes and checkpoints, as events."""

import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from alignment_core.errors import AlignmentError, DivergenceError
from alignment_core.evaluation.probe import HeldOutProbe
from alignment_core.evaluation.probe_figures import ProbeFigures
from alignment_core.events import (
    Event,
    MicroBatchChosen,
    PhaseChanged,
    PhaseDivided,
    ProbeCompleted,
    ResultSelected,
    ThroughputMeasured,
    ValidationCompleted,
    WarningRaised,
)
from alignment_core.protocols import Method
from alignment_core.rollouts.setup import Drawing
from alignment_core.timesteps.table import TimestepTally
from alignment_core.training.asked import Asked
from alignment_core.training.loop import finite
from alignment_core.training.result import decide_result, forget_missing, load_result
from alignment_core.training.run import Run
from alignment_core.training.run_state import Ending
from alignment_core.training.saving import CHECKPOINTS, announce, checkpoint_saved, save, save_for_good, write
from alignment_core.training.steps import begin_batches, steps_within_memory
from alignment_core.training.validation import validate

TIME_LIMIT = "time_limit"


def train_run(
    run: Run, probe: HeldOutProbe | None, asked: Asked, workdir: Path, started: float
) -> Generator[Event, None, ResultSelected]:
    """Train, validate, probe and save; returns which checkpoint is the result, whose weights the policy then has.

    Whatever ends it early, the last completed step is saved on the way out: after a divergence or an error on the GPU the
    weights are still those of that step, so the checkpoint is good.
    """
    try:
        yield from forget_missing(run, workdir / CHECKPOINTS)
        yield from _warnings(run)
        try:
            if probe is not None and run.state.awaits_probe(run.spec.evaluation.every):
                yield from _probe_and_save(run, probe, workdir)
            if run.state.stage == "training":
                yield PhaseChanged(phase="training")
                yield from _train(run, probe, asked, workdir, started)
        except DivergenceError as error:
            _end(run, run.watch.observe_divergence(run.state.step + 1, error.message))
            yield from _warnings(run)
            if run.state.ending is None:
                raise
        return (yield from _finish(run, workdir))
    except GeneratorExit:
        run.background.wait()
        if not run.state.is_saved:
            write(run, workdir)
        raise
    except (AlignmentError, RuntimeError) as error:
        if not _is_everywhere(run, error):
            run.background.wait_alone()
            raise
        yield from announce(run, run.background.wait(), workdir)
        if not run.state.is_saved:
            yield checkpoint_saved(write(run, workdir), workdir)
        raise


# --- steps ---------------------------------------------------------------------------------------------------------


def _train(run: Run, probe: HeldOutProbe | None, asked: Asked, workdir: Path, started: float) -> Iterator[Event]:
    """Steps until the last one, or until a guard ends the training; the last one is left to be saved."""
    spec, limit = run.spec, run.spec.resources.max_run_seconds
    tally = TimestepTally(run.family.path.num_timesteps, since_step=run.state.step)
    batches, announced = (yield from begin_batches(run)), None
    for event in steps_within_memory(run, tally, batches):
        if run.finds_split and announced != run.split:
            announced = run.split
            yield MicroBatchChosen(batch_size=announced.batch_size, gradient_accumulation_steps=announced.accumulation)
        run.meter.step(event.step_seconds)
        if run.reference_errors is not None:
            run.reference_errors.share(run.ranks)
        run.state = run.state.complete_step(event.step)
        _end(run, run.watch.observe_step(event.step, event.metrics))
        yield event
        yield from _warnings(run)
        if run.validation is not None and run.state.is_due(spec.training.validate_every):
            yield from _validate(run, run.validation, event.step)
        if run.state.has_last_step or run.state.is_due(spec.training.validate_every):
            yield tally.table("training", event.step)
        if probe is not None and run.state.awaits_probe(spec.evaluation.every):
            yield from _probe_and_save(run, probe, workdir)
        if run.state.has_last_step or event.step % spec.checkpoints.every == 0:
            yield ThroughputMeasured(step=event.step, throughput=run.meter.read())
            yield _divided(run)
        if run.state.stage == "ended":
            return
        if limit is not None and _is_over(run, limit, started):
            raise AlignmentError(TIME_LIMIT, f"step {event.step}: resources.max_run_seconds ({limit}) is over")
        yield from announce(run, run.background.take_finished(), workdir)
        if event.step % spec.checkpoints.every == 0 and not run.state.is_saved:
            yield from save(run, workdir)
        yield from asked.answer(run, lambda: save_for_good(run, workdir))


def _divided(run: Run) -> PhaseDivided:
    """What the steps since it was told last waited for."""
    waited, method = run.meter.waiting.take(), run.method
    if not isinstance(method, Drawing):
        return PhaseDivided(phase="training", seconds={"waiting_for_data": round(waited, 3)})
    scoring = method.setup.scoring.take()
    sampling = max(0.0, waited - scoring)
    return PhaseDivided(phase="training", seconds={"sampling": round(sampling, 3), "scoring": round(scoring, 3)})


def _end(run: Run, ending: Ending | None) -> None:
    if ending is not None:
        run.state = run.state.end(ending)


def _is_over(run: Run, limit: int, started: float) -> bool:
    """Whether the run had its time, by the main process's clock: a rank that left alone would have the others wait for it."""
    return run.ranks.of_first(lambda: time.monotonic() - started > limit)


def _warnings(run: Run) -> Iterator[Event]:
    """What the guards have to say; what a run that left could not say any more, its next attempt says first."""
    yield from run.watch.take_unsaid()
    if (trouble := run.actors.take_recording_trouble()) is not None:
        message = f"the step's kernels could not be recorded, so that each is launched by itself: {trouble}"
        yield WarningRaised(code="cuda_graphs_unavailable", message=message)
    if run.shelves is not None and (mended := run.shelves.take_mended()):
        message = f"encoded data was damaged or gone, here and in the store, and was encoded again: {', '.join(mended)}"
        yield WarningRaised(code="encoded_again", message=message, step=run.state.step)


def _validate(run: Run, method: Method[Any], step: int) -> Iterator[Event]:
    metrics, table = validate(run.actors, method, run.timesteps, run.num_validation_examples, step, run.ranks)
    yield ValidationCompleted(step=step, metrics=finite(metrics))
    yield table


# --- probes --------------------------------------------------------------------------------------------------------


def _probe_and_save(run: Run, probe: HeldOutProbe, workdir: Path) -> Iterator[Event]:
    """Probe the policy, and save it when it is the best so far; the last step is saved by whoever ends the training."""
    step = run.state.step
    yield PhaseChanged(phase="sampling")
    run.actors.forget_recordings()  # drawing needs the memory
    found = yield from _measured(probe, step)
    yield PhaseChanged(phase="training")
    if isinstance(found, str):
        _end(run, run.watch.observe_divergence(step, found))
        if run.state.ending is None:
            raise DivergenceError("diverged", found)
        yield from _warnings(run)
        return
    assert isinstance(found, ProbeFigures)
    finding = run.watch.observe_probe(found)
    run.state = run.state.probe(finding.value)
    _end(run, finding.ending)
    is_best = run.state.best is not None and run.state.best.step == step
    yield ProbeCompleted(step=step, num_prompts=found.num_prompts, metrics=finite(found.metrics()), is_best=is_best)
    yield from _warnings(run)
    if is_best and run.state.stage == "training":
        yield from save(run, workdir)


def _measured(probe: HeldOutProbe, step: int) -> Generator[Event, None, ProbeFigures | str]:
    """The figures, or what the policy drew instead of images."""
    try:
        return (yield from probe.measure(step))
    except DivergenceError as error:
        return error.message


def _finish(run: Run, workdir: Path) -> Generator[Event, None, ResultSelected]:
    """Choose the result, save the last step with that choice, and give the policy the result's weights."""
    run.actors.forget_recordings()
    yield PhaseChanged(phase="saving")
    yield from announce(run, run.background.wait(), workdir)
    if run.state.stage != "decided":
        decide_result(run, workdir / CHECKPOINTS)
        folder = write(run, workdir)
        run.state = run.state.save()
        yield checkpoint_saved(folder, workdir)
    result = load_result(run, workdir)
    yield result
    return result


def _is_everywhere(run: Run, error: AlignmentError | RuntimeError) -> bool:
    """Whether every process raises it after the same step; one that failed alone must not wait for the others to save.

    Nor is what the others have then worth saving: a process that is cut off in mid-step cannot know which step its weights are of.
    """
    together = isinstance(error, DivergenceError) or (isinstance(error, AlignmentError) and error.code == TIME_LIMIT)
    return run.ranks.count == 1 or together
