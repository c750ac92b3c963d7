"""Any two checkpoints against each other: `python -m alignment_core compare WORKDIR --base STEP --policy STEP`.

The prompts, seeds, rewards and drawing are those that the work folder's own spec evaluates with.
"""

import re
from collections.abc import Generator
from functools import partial
from pathlib import Path

from alignment_core import checkpoints
from alignment_core.actors.actors import Actors
from alignment_core.errors import CheckpointError, DataError
from alignment_core.evaluation.contenders import Contender, Contenders, checkpointed_policy, initial_model
from alignment_core.evaluation.evaluate import ReportFolder
from alignment_core.events import Event, PhaseChanged
from alignment_core.families.family import Family
from alignment_core.load.accelerator import new_accelerator
from alignment_core.load.networks import load_networks
from alignment_core.load.precision import settled
from alignment_core.load.run import load_run
from alignment_core.load.vae_precision import vae_settled
from alignment_core.prove.evaluation_run import Training, compare_contenders
from alignment_core.spec import JobSpec
from alignment_core.spec.places import Sources
from alignment_core.training.run import HISTORY, Run
from alignment_core.training.saving import CHECKPOINTS

INITIAL, LATEST, RESULT = "initial", "latest", "result"


def compare_checkpoints(
    workdir: Path,
    *,
    base: str = INITIAL,
    policy: str = RESULT,
    sources: Sources,
    cache_dir: Path,
) -> Generator[Event, None, None]:
    """Compare two models of a work folder, and write the report to `comparisons/BASE-and-POLICY` in it.

    Each is `initial`, `latest`, `result` (the checkpoint that the run's own report is about; the latest before its end), the
    step of a checkpoint, or the path of a checkpoint or of another work folder, whose result it then is; that one must have
    been trained from the same initial model. Raises `CheckpointError` for what is none of these.
    """
    newest = checkpoints.latest(workdir / CHECKPOINTS)
    if newest is None:
        raise CheckpointError("no_checkpoint", f"{workdir / CHECKPOINTS} holds no checkpoint")
    folders = [folder_of(side, workdir) for side in (base, policy)]
    manifests = [None if folder is None else checkpoints.verify(folder) for folder in folders]
    spec = JobSpec.model_validate(checkpoints.read_manifest(newest).spec)
    accelerator = new_accelerator(spec)
    yield PhaseChanged(phase="loading")
    precision = settled(spec.training.precision, accelerator.device.type, newest)
    vae_precision = vae_settled(spec.training.vae_precision, accelerator.device.type, newest)
    run = yield from load_run(spec, sources, accelerator, cache_dir, precision, vae_precision=vae_precision)
    if not run.evaluation_prompts:
        raise DataError(
            "no_evaluation_prompts", "the work folder's spec holds no prompts out: there is nothing to draw"
        )
    sides = Contenders(
        *(_contender(run, sources, cache_dir, *side) for side in zip(folders, (base, policy), strict=True))
    )
    if folders[1] is not None:
        run.history.restore(folders[1] / checkpoints.STATE / HISTORY)
    specs = [JobSpec.model_validate(one.spec) for one in manifests if one is not None] or [spec]
    training = Training(specs, None if manifests[1] is None else manifests[1].dataset_sha256)
    name = "-and-".join(_slug(side.model.label) for side in (sides.base, sides.policy))
    yield from compare_contenders(run, sides, training, ReportFolder(workdir / "comparisons" / name, workdir))


def folder_of(side: str, workdir: Path) -> Path | None:
    """The checkpoint folder that a side names; None for the initial model. Raises `CheckpointError`."""
    own = workdir / CHECKPOINTS
    if side == INITIAL:
        return None
    if side.isdecimal():
        found = checkpoints.folder_of(own, int(side))
        if not (found / checkpoints.MANIFEST).is_file():
            steps = ", ".join(str(checkpoints.read_manifest(one).step) for one in checkpoints.complete(own))
            raise CheckpointError("no_checkpoint", f"{workdir} has no checkpoint of step {side}; there are: {steps}")
        return found
    place = workdir if side in (LATEST, RESULT) else Path(side)
    if (place / checkpoints.MANIFEST).is_file():
        return place
    newest = checkpoints.latest(place / CHECKPOINTS)
    if newest is None:
        expected = "neither initial, latest, result, a step, a checkpoint nor a work folder with one"
        raise CheckpointError("no_checkpoint", f"{side!r} is {expected}")
    chosen = None if side == LATEST else checkpoints.read_manifest(newest).result_step
    return newest if chosen is None else checkpoints.folder_of(place / CHECKPOINTS, chosen)


def _contender(run: Run, sources: Sources, cache_dir: Path, folder: Path | None, side: str) -> Contender:
    if folder is None:
        return initial_model(run.family, run.actors, run.draw)
    manifest = checkpoints.read_manifest(folder)
    if manifest.base_model_sha256 != run.base_model_sha256:
        raise CheckpointError("other_initial_model", f"{folder} was trained from another initial model")
    own = side in (LATEST, RESULT) or side.isdecimal()
    label = f"step {manifest.step}" if own else f"step {manifest.step} of run {manifest.spec_sha256[:8]}"
    family, actors = _networks(run, sources, cache_dir, JobSpec.model_validate(manifest.spec))
    return checkpointed_policy(family, actors, partial(run.draw_by, family), folder, label)


def _networks(run: Run, sources: Sources, cache_dir: Path, trained_by: JobSpec) -> tuple[Family, Actors]:
    """The run's own networks where the weights fit them, or others of the same initial model, with their own family."""
    if trained_by.adapter == run.spec.adapter:
        return run.family, run.actors
    spec = run.spec.model_copy(update={"adapter": trained_by.adapter})
    return load_networks(spec, sources, run.accelerator, cache_dir)


def _slug(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
