"""The training half of a run: optimiser steps with their validations, probes and checkpoints, as events."""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from alignment_core import checkpoints
from alignment_core.errors import AlignmentError, DivergenceError
from alignment_core.evaluation.probe import HeldOutProbe
from alignment_core.evaluation.probe_figures import ProbeFigures
from alignment_core.events import (
    CheckpointSaved,
    Event,
    MicroBatchChosen,
    PhaseChanged,
    PhaseDivided,
    ProbeCompleted,
    ResultSelected,
    StepCompleted,
    ThroughputMeasured,
    ValidationCompleted,
    WarningRaised,
)
from alignment_core.protocols import Method
from alignment_core.rollouts.setup import Drawing
from alignment_core.timesteps.table import TimestepTally
from alignment_core.training.asked import Asked
from alignment_core.training.compiling import compile_for, may_compile
from alignment_core.training.logit_error import DTYPES, measure
from alignment_core.training.loop import finite, train
from alignment_core.training.micro_batch import OWN_MEMORY, MicroBatchTooLarge, Split
from alignment_core.training.result import decide_result, forget_missing, load_result
from alignment_core.training.run import Run
from alignment_core.training.run_state import Ending
from alignment_core.training.throughput import flops_of
from alignment_core.training.validation import validate

CHECKPOINTS = "checkpoints"
BACKGROUND_BYTES = 2**28  # of training state: what is smaller is written before the next step would be
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
            _write(run, workdir)
        raise
    except (AlignmentError, RuntimeError) as error:
        if not _is_everywhere(run, error):
            run.background.wait_alone()
            raise
        yield from _announced(run, run.background.wait(), workdir)
        if not run.state.is_saved:
            yield checkpoint_saved(_write(run, workdir), workdir)
        raise


# --- steps ---------------------------------------------------------------------------------------------------------


def _train(run: Run, probe: HeldOutProbe | None, asked: Asked, workdir: Path, started: float) -> Iterator[Event]:
    """Steps until the last one, or until a guard ends the training; the last one is left to be saved."""
    spec, limit = run.spec, run.spec.resources.max_run_seconds
    tally = TimestepTally(run.family.path.num_timesteps, since_step=run.state.step)
    batches, announced = (yield from _begin(run)), None
    for event in _steps_within_memory(run, tally, batches):
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
        yield from _announced(run, run.background.take_finished(), workdir)
        if event.step % spec.checkpoints.every == 0 and not run.state.is_saved:
            yield from _save(run, workdir)
        yield from asked.answer(run, lambda: _save_for_good(run, workdir))


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


def _begin(run: Run) -> Generator[Event, None, Iterator[Any]]:
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


def _steps_within_memory(run: Run, tally: TimestepTally, batches: Iterator[Any]) -> Iterator[StepCompleted]:
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
    yield from islice(_steps_within_memory(run, tally, _batches(run)), num)


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
        yield from _save(run, workdir)


def _measured(probe: HeldOutProbe, step: int) -> Generator[Event, None, ProbeFigures | str]:
    """The figures, or what the policy drew instead of images."""
    try:
        return (yield from probe.measure(step))
    except DivergenceError as error:
        return error.message


# --- checkpoints and the result ------------------------------------------------------------------------------------


def _finish(run: Run, workdir: Path) -> Generator[Event, None, ResultSelected]:
    """Choose the result, save the last step with that choice, and give the policy the result's weights."""
    run.actors.forget_recordings()
    yield PhaseChanged(phase="saving")
    yield from _announced(run, run.background.wait(), workdir)
    if run.state.stage != "decided":
        decide_result(run, workdir / CHECKPOINTS)
        folder = _write(run, workdir)
        run.state = run.state.save()
        yield checkpoint_saved(folder, workdir)
    result = load_result(run, workdir)
    yield result
    return result


def _save(run: Run, workdir: Path) -> Iterator[Event]:
    """Save the last completed step, beside the steps that follow where it takes a while; `_announced` tells of it then.

    The phase is what training stands still for: the checkpoint before that is not written yet, a copy, and the writing of a small one.
    """
    yield PhaseChanged(phase="saving")
    with run.meter.saving():
        before = run.background.wait()
    yield from _announced(run, before, workdir)
    with run.meter.saving():
        folder = _begin_writing(run, workdir)
    run.state = run.state.save()
    yield from _announced(run, folder, workdir)
    yield PhaseChanged(phase="training")


def _save_for_good(run: Run, workdir: Path) -> Iterator[Event]:
    """Save the last completed step, to be kept until the run ends; it is whole when this ends."""
    run.asked_steps.add(run.state.step)
    if not run.state.is_saved:
        yield from _save(run, workdir)
    yield from _announced(run, run.background.wait(), workdir)


def _begin_writing(run: Run, workdir: Path) -> Path | None:
    """The checkpoint's folder, or None where it is being written."""
    snapshot = run.snapshot(workdir / CHECKPOINTS)
    written = run.ranks.of_first(
        lambda: snapshot.write() if snapshot and snapshot.num_bytes < BACKGROUND_BYTES else None
    )
    if written is None:
        run.background.begin(snapshot and snapshot.write)
    return written


def _announced(run: Run, folder: Path | None, workdir: Path) -> Iterator[Event]:
    """Say that a checkpoint is whole, and make room; nothing where none has become so."""
    if folder is not None:
        run.ranks.of_first(lambda: _prune(run, workdir))
        yield checkpoint_saved(folder, workdir)


def _write(run: Run, workdir: Path) -> Path:
    """The best one and the result stay, however old they are."""
    folder = run.save(workdir / CHECKPOINTS)
    run.ranks.of_first(lambda: _prune(run, workdir))
    return folder


def _prune(run: Run, workdir: Path) -> None:
    checkpoints.prune(workdir / CHECKPOINTS, run.spec.checkpoints.keep_last, run.state.kept_steps | run.asked_steps)


def _is_everywhere(run: Run, error: AlignmentError | RuntimeError) -> bool:
    """Whether every process raises it after the same step; one that failed alone must not wait for the others to save.

    Nor is what the others have then worth saving: a process that is cut off in mid-step cannot know which step its weights are of.
    """
    together = isinstance(error, DivergenceError) or (isinstance(error, AlignmentError) and error.code == TIME_LIMIT)
    return run.ranks.count == 1 or together


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
