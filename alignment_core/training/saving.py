"""Checkpoints of a run as it goes on: written beside the steps that follow where that takes a while, announced once whole."""

from collections.abc import Iterator
from pathlib import Path

from alignment_core import checkpoints
from alignment_core.events import CheckpointSaved, Event, PhaseChanged
from alignment_core.training.run import Run

CHECKPOINTS = "checkpoints"
BACKGROUND_BYTES = 2**28  # of training state: what is smaller is written before the next step would be


def save(run: Run, workdir: Path) -> Iterator[Event]:
    """Save the last completed step, beside the steps that follow where it takes a while; `announce` tells of it then.

    The phase is what training stands still for: the checkpoint before that is not written yet, a copy, and the writing of a small one.
    """
    yield PhaseChanged(phase="saving")
    with run.meter.saving():
        before = run.background.wait()
    yield from announce(run, before, workdir)
    with run.meter.saving():
        folder = _begin_writing(run, workdir)
    run.state = run.state.save()
    yield from announce(run, folder, workdir)
    yield PhaseChanged(phase="training")


def save_for_good(run: Run, workdir: Path) -> Iterator[Event]:
    """Save the last completed step, to be kept until the run ends; it is whole when this ends."""
    run.asked_steps.add(run.state.step)
    if not run.state.is_saved:
        yield from save(run, workdir)
    yield from announce(run, run.background.wait(), workdir)


def _begin_writing(run: Run, workdir: Path) -> Path | None:
    """The checkpoint's folder, or None where it is being written."""
    snapshot = run.snapshot(workdir / CHECKPOINTS)
    written = run.ranks.of_first(
        lambda: snapshot.write() if snapshot and snapshot.num_bytes < BACKGROUND_BYTES else None
    )
    if written is None:
        run.background.begin(snapshot and snapshot.write)
    return written


def announce(run: Run, folder: Path | None, workdir: Path) -> Iterator[Event]:
    """Say that a checkpoint is whole, and make room; nothing where none has become so."""
    if folder is not None:
        run.ranks.of_first(lambda: _prune(run, workdir))
        yield checkpoint_saved(folder, workdir)


def write(run: Run, workdir: Path) -> Path:
    """Save the last completed step while nothing else goes on, and make room: the best one and the result stay, however old they are."""
    folder = run.save(workdir / CHECKPOINTS)
    run.ranks.of_first(lambda: _prune(run, workdir))
    return folder


def _prune(run: Run, workdir: Path) -> None:
    checkpoints.prune(workdir / CHECKPOINTS, run.spec.checkpoints.keep_last, run.state.kept_steps | run.asked_steps)


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
