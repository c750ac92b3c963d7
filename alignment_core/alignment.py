"""align(): from a spec to events. Start reading here.

    for event in align(spec, workdir):
        ...

Leaving the loop early is how a run is stopped: the generator saves a checkpoint of the last completed step on its way out,
and the next `align` with the same spec and work folder goes on from there.
"""

import shutil
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from alignment_core import checkpoints
from alignment_core.errors import AlignmentError, CheckpointError
from alignment_core.evaluation.evaluate import evaluate
from alignment_core.evaluation.report import Bootstrap, Provenance
from alignment_core.events import (
    CheckpointSaved,
    Event,
    PhaseChanged,
    RunCompleted,
    RunStarted,
    ValidationCompleted,
    WarningRaised,
)
from alignment_core.load import load_run, new_accelerator
from alignment_core.protocols import Method
from alignment_core.run import Run
from alignment_core.sources import Sources
from alignment_core.spec import JobSpec, warnings_of
from alignment_core.timestep_table import TimestepTally
from alignment_core.trainer import finite, train
from alignment_core.validation import validate
from alignment_core.versions import versions

CHECKPOINTS = "checkpoints"
NO_SOURCES = Sources()


def align(
    spec: JobSpec, workdir: Path, *, sources: Sources = NO_SOURCES, cache_dir: Path | None = None
) -> Generator[Event, None, None]:
    """Run a job, yielding what happens; the first event says what is really going to be run.

    `workdir` receives checkpoints and the evaluation, and is resumed when it holds a checkpoint of the same spec;
    `sources` says where the models, judges and datasets are that the spec only names;
    `cache_dir` (default `~/.cache/attune`) keeps VAE posteriors and text embeddings for any run that needs them again.
    Under `accelerate launch` every process runs this; the main one saves and evaluates, and all must leave the loop after
    the same step.

    Raises `AlignmentError` when the run cannot go on; checkpoints saved before that are good.
    """
    spec = spec.resolved()
    started = time.monotonic()
    accelerator = new_accelerator(spec)
    with accelerator.main_process_first():
        resumed = find_resumable(workdir, spec)
    yield _run_started(spec, accelerator.num_processes, accelerator.device.type, resumed)
    yield PhaseChanged(phase="loading")
    run = yield from load_run(spec, sources, accelerator, cache_dir or Path.home() / ".cache" / "attune")
    first_step = run.restore(resumed) if resumed else 0
    yield from _train(run, workdir, first_step, started)
    if accelerator.is_main_process:
        yield from _evaluate(run, workdir)
    yield RunCompleted(step=spec.training.steps)


def find_resumable(workdir: Path, spec: JobSpec) -> Path | None:
    """The newest whole checkpoint of this very spec; raises `CheckpointError` when the folder belongs to another run."""
    for folder in reversed(checkpoints.complete(workdir / CHECKPOINTS)):
        try:
            manifest = checkpoints.verify(folder)
        except CheckpointError:
            # An altered checkpoint helps nobody; the one before it may be good.
            shutil.rmtree(folder, ignore_errors=True)
            continue
        if manifest.spec_sha256 != spec.sha256():
            raise CheckpointError(
                "workdir_in_use",
                f"{workdir} holds checkpoints of another spec",
                hint="Choose an empty work folder, or run the spec that this one was made with.",
            )
        return folder
    return None


def _run_started(spec: JobSpec, num_processes: int, device: str, resumed: Path | None) -> RunStarted:
    training = spec.training
    assert training.learning_rate is not None
    return RunStarted(
        spec=spec.model_dump(mode="json"),
        spec_sha256=spec.sha256(),
        learning_rate=training.learning_rate,
        pairs_per_step=training.batch_size * training.gradient_accumulation_steps * num_processes,
        total_steps=training.steps,
        device=device,
        precision=training.precision,
        resumed_from_step=checkpoints.read_manifest(resumed).step if resumed else None,
        warnings=warnings_of(spec),
        versions=versions(),
    )


def _train(run: Run, workdir: Path, first_step: int, started: float) -> Iterator[Event]:
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


def _evaluate(run: Run, workdir: Path) -> Iterator[Event]:
    """Compare the policy with the model it started from, on held-out prompts."""
    spec = run.spec.evaluation
    if not run.evaluation_prompts:
        yield WarningRaised(
            code="no_evaluation", message="there are no held-out prompts: the run ends without a report"
        )
        return
    base, policy = run.samplers()
    yield from evaluate(
        base,
        policy,
        prompts=run.evaluation_prompts,
        max_prompts=spec.max_prompts,
        seeds_per_prompt=spec.seeds_per_prompt,
        rewards=run.rewards,
        prompt_following=run.prompt_following,
        batch_size=spec.batch_size,
        grid_prompts=spec.grid_prompts,
        bootstrap=Bootstrap(spec.bootstrap_resamples, spec.confidence, run.spec.seed),
        provenance=Provenance(
            step=run.spec.training.steps,
            num_inference_steps=spec.num_inference_steps,
            guidance_scale=spec.guidance_scale,
            spec_sha256=run.spec.sha256(),
            base_model_sha256=run.base_model_sha256,
        ),
        workdir=workdir,
    )
