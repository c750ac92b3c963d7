"""align(): from a spec to events. Start reading here.

    for event in align(spec, workdir):
        ...

Leaving the loop early is how a run is stopped: the generator saves a checkpoint of the last completed step on its way out,
and the next `align` with the same spec and work folder goes on from there.
"""

import os
import shutil
import time
from collections.abc import Generator
from pathlib import Path

from pydantic import ValidationError

from alignment_core import checkpoints
from alignment_core.errors import AlignmentError, CheckpointError
from alignment_core.events import Event, PhaseChanged, RunCompleted, RunStarted
from alignment_core.load.accelerator import new_accelerator
from alignment_core.load.model import family_of_source
from alignment_core.load.precision import settled
from alignment_core.load.probe import load_asked, load_probe
from alignment_core.load.run import load_run
from alignment_core.load.vae_precision import vae_settled
from alignment_core.prove.evaluation_run import evaluate_run
from alignment_core.spec import JobSpec
from alignment_core.spec.continuation import broken_by
from alignment_core.spec.families import FamilyName
from alignment_core.spec.places import Sources, localize
from alignment_core.spec.training import Precision
from alignment_core.spec.warnings import warnings_of
from alignment_core.start_checks import check_start, forget_trial
from alignment_core.training.history import History, recorded
from alignment_core.training.run_training import train_run
from alignment_core.training.saving import CHECKPOINTS
from alignment_core.versions import versions

NO_SOURCES = Sources()


def align(
    spec: JobSpec,
    workdir: Path,
    *,
    sources: Sources = NO_SOURCES,
    cache_dir: Path | None = None,
    resume_from: Path | None = None,
    check_only: bool = False,
) -> Generator[Event, None, None]:
    """Run a job, yielding what happens; the first event says what is really going to be run.

    `workdir` receives checkpoints and the evaluation, and is resumed when it holds a checkpoint of the same spec;
    `resume_from` is a checkpoint of another run to begin from, whose spec may differ (`spec_continuation`), as long as the
    work folder holds none; `sources` says where the models, judges and datasets are that the spec only names;
    `cache_dir` (default `~/.cache/attune`) keeps VAE posteriors and text embeddings for any run that needs them again.
    `check_only` ends once what is tried before a run has passed (`start_checks`). Under a launcher of several processes every one runs this: they draw and judge together, the first one writes, and all must
    leave the loop after the same event.

    Raises `AlignmentError` when the run cannot go on; checkpoints saved before that are good.
    """
    started = time.monotonic()
    spec = on_processes(spec, int(os.environ.get("WORLD_SIZE", "1")))
    family = family_of_source(localize(spec, sources).model)
    spec = spec.resolved(family)
    accelerator = new_accelerator(spec)
    with accelerator.main_process_first():
        own = find_resumable(workdir, spec)
        resumed = own or (resume_from and checked_start(resume_from, spec))
    precision = settled(spec.training.precision, accelerator.device.type, resumed)
    vae_precision = vae_settled(spec.training.vae_precision, accelerator.device.type, resumed)
    yield _run_started(spec, family, accelerator.device.type, precision, resumed)
    cache_dir = cache_dir or Path.home() / ".cache" / "attune"
    if check_only or (spec.training.start_checks and own is None):  # a run that has saved has passed them
        yield PhaseChanged(phase="checking")
        tried = yield from check_start(spec, sources, cache_dir, workdir, precision, vae_precision, resumed or None)
        precision, vae_precision = tried
        forget_trial()
        if check_only:
            yield RunCompleted(step=0)
            return
        accelerator = new_accelerator(spec, precision)
    yield PhaseChanged(phase="loading")
    history = History()
    run = yield from recorded(
        load_run(spec, sources, accelerator, cache_dir, precision, vae_precision=vae_precision), history
    )
    run.history = history
    if resumed:
        run.restore(resumed)
    if own is None:
        run.forget_findings()  # what the guards of another run saw and decided is not this run's
    probe = yield from recorded(load_probe(run), history)
    result = yield from recorded(train_run(run, probe, load_asked(run, probe, workdir), workdir, started), history)
    yield from evaluate_run(run, workdir, result)
    yield RunCompleted(step=result.last_step)


def on_processes(spec: JobSpec, num: int) -> JobSpec:
    """The spec on as many processes as a launcher started; raises `AlignmentError` where it asks for another number.

    One that asks for a single process takes what there is, and is another run then: its steps have other examples.
    """
    wanted = spec.resources.processes
    if wanted == num:
        return spec
    if wanted > 1:
        raise AlignmentError(
            "processes_differ",
            f"resources.processes is {wanted}, and {num} of them run",
            hint=f"Start it with `torchrun --nproc-per-node {wanted} -m alignment_core run ...`.",
        )
    resources = spec.resources.model_copy(update={"processes": num})
    try:
        return JobSpec.model_validate(spec.model_copy(update={"resources": resources}).model_dump())
    except ValidationError as error:
        raise AlignmentError("spec_unfit_for_processes", f"on {num} processes: {error.errors()[0]['msg']}") from error


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
            raise _other_run(workdir, spec, JobSpec.model_validate(manifest.spec))
        return folder
    return None


def _other_run(workdir: Path, spec: JobSpec, other: JobSpec) -> CheckpointError:
    """What a folder holds that a run of `spec` cannot go on with in place."""
    held, asked = other.resources.processes, spec.resources.processes
    if held != asked:
        return CheckpointError(
            "workdir_in_use",
            f"{workdir} holds checkpoints of a run in {held} process{'es' if held > 1 else ''}, and this one is in {asked}",
            hint="Go on in an empty work folder, with resume_from one of the checkpoints: weights and moments are exact, and with as "
            "many examples a step the draws too. Or start as many processes as before.",
        )
    return CheckpointError(
        "workdir_in_use",
        f"{workdir} holds checkpoints of another spec",
        hint="Choose an empty work folder, or run the spec that this one was made with.",
    )


def checked_start(folder: Path, spec: JobSpec) -> Path:
    """The checkpoint of another run, if a run of `spec` can go on from it; else raises `CheckpointError`."""
    manifest = checkpoints.verify(folder)
    if broken := broken_by(JobSpec.model_validate(manifest.spec), spec):
        raise CheckpointError(
            "checkpoint_of_another_kind", f"{folder.name} was trained with another {', '.join(broken)}: it cannot go on"
        )
    if manifest.step >= spec.training.steps:
        raise CheckpointError(
            "nothing_left_to_train", f"{folder.name} has the {spec.training.steps} steps of training.steps already"
        )
    return folder


def _run_started(
    spec: JobSpec, family: FamilyName | None, device: str, precision: Precision | None, resumed: Path | None
) -> RunStarted:
    training = spec.training
    assert training.learning_rate is not None
    return RunStarted(
        spec=spec.model_dump(mode="json"),
        spec_sha256=spec.sha256(),
        learning_rate=training.learning_rate,
        examples_per_step=spec.examples_per_step,
        total_steps=training.steps,
        device=device,
        precision=precision or "auto",
        resumed_from_step=checkpoints.read_manifest(resumed).step if resumed else None,
        warnings=warnings_of(spec, family),
        versions=versions(),
    )
