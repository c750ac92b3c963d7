"""Before a run: the data, the checkpoint to go on from and the names of its spec, brought to this machine."""

from pathlib import Path
from typing import Any

import structlog

from alignment_core.errors import AlignmentError
from alignment_core.events import WarningRaised
from alignment_core.spec import CheckpointSource, Contest, JobSpec, LocalLora, LocalPrompts, LocalSource
from alignment_core.spec.places import RunLabel
from alignment_core.spec.sources import OnBadRow
from service.store import datasets, outputs, prompt_sets
from service.store.catalog import checkpoint_sources, sources_of, stored_datasets, stored_prompts, stored_weights
from service.store.records.checkpoints import CheckpointRecord
from service.store.records.jobs import Claim
from service.store.records.uploads import DatasetRecord
from worker import inputs
from worker.parts import WorkerParts
from worker.ranges import DATA, data_of
from worker.recording import record_plain
from worker.shards import SHARDS, shared_shards

log = structlog.get_logger()


def prepare_alignment(parts: WorkerParts, claim: Claim, workdir: Path) -> list[str]:
    """Bring everything the spec names to this machine; returns the arguments of the run that will read it."""
    inputs.remove(workdir)
    workdir.mkdir(parents=True, exist_ok=True)  # a read-only disk keeps it, and says so at the next write
    spec = JobSpec.model_validate(claim.job.spec)
    records = {found: _dataset(parts, claim, pointer, found) for pointer, found in stored_datasets(spec)}
    data, exchange, processes = workdir / DATA, workdir / SHARDS, spec.resources.processes
    paths = {found: data_of(parts, record, data, exchange, processes) for found, record in records.items()}
    columns = {found: record.columns for found, record in records.items()}
    bad_rows: dict[str, OnBadRow] = {found: record.on_bad_row for found, record in records.items()}
    begin = [] if _fetch_checkpoints(parts, claim, workdir) else _fetch_start(parts, claim, workdir)
    names = [record.name or record.filename for record in records.values()]
    label = RunLabel(
        job_id=claim.job.id,
        job_name=claim.job.name,
        dataset_name=next(iter(names), None),
        metadata=claim.job.metadata,
    )
    try:
        sources = sources_of(spec, parts.catalog, paths, columns, label, bad_rows).model_copy(
            update={
                **starting_places(parts, claim.job.project_id, spec, workdir),
                "prompt_sets": prompt_places(parts, claim.job.project_id, spec),
                "shards": shared_shards(parts, spec, workdir),
                "unpacked_disk_bytes": parts.settings.unpacked_disk_bytes,
            }
        )
        only = ["--check-only"] if claim.job.check_only else []
        trackers = [] if only else [word for name in parts.settings.trackers for word in ("--track", name)]
        return [*inputs.write_inputs(spec, sources, workdir), *begin, *only, *trackers]
    except KeyError as error:
        message = f"this worker's catalog has no {error.args[0]!r}"
        raise AlignmentError("catalog_entry_missing", message, category="system") from error


def starting_places(parts: WorkerParts, project_id: str, spec: JobSpec | Contest, workdir: Path) -> dict[str, Any]:
    """Where this machine now has the uploaded weights and the earlier checkpoints that the spec names, for `Sources`."""
    weights: dict[str, LocalLora] = {}
    models: dict[str, LocalSource] = {}
    loras: dict[str, LocalLora] = {}
    for pointer, found in stored_weights(spec):
        record = datasets.get(parts.store, project_id, found)
        if record is None:
            raise AlignmentError("weights_missing", f"{pointer}: {found} do not exist any more")
        weights[found] = LocalLora(path=str(inputs.fetch_dataset(parts, record)))
    for pointer, found in checkpoint_sources(spec):
        checkpoint = outputs.get_checkpoint(parts.store, project_id, found)
        if checkpoint is None:
            raise AlignmentError("checkpoint_missing", f"{pointer}: {found} does not exist any more")
        folder = inputs.fetch_weights(parts, checkpoint, workdir / "started_from" / found)
        if pointer.endswith("/model/id"):
            models[found] = LocalSource(path=str(folder / inputs.PIPELINE))
        else:
            loras[found] = LocalLora(path=str(folder / inputs.LORA_FILE))
    return {"weights": weights, "models_of_checkpoints": models, "loras_of_checkpoints": loras}


def prompt_places(parts: WorkerParts, project_id: str, spec: JobSpec | Contest) -> dict[str, LocalPrompts]:
    """Where this machine now has the prompt sets that the spec names; the run checks their hash."""
    places: dict[str, LocalPrompts] = {}
    for pointer, source in stored_prompts(spec):
        found = prompt_sets.get(parts.store, project_id, source.id)
        if found is None:
            raise AlignmentError("prompt_set_missing", f"{pointer}: {source.id} does not exist any more")
        places[source.id] = LocalPrompts(path=str(inputs.fetch_prompts(parts, found)), sha256=found.sha256)
    return places


def model_of_checkpoint(parts: WorkerParts, project_id: str, spec: JobSpec, folder: Path) -> dict[str, LocalSource]:
    """Where this machine now has the earlier checkpoint that the spec names as its model, if it names one."""
    if not isinstance(spec.model, CheckpointSource):
        return {}
    checkpoint = outputs.get_checkpoint(parts.store, project_id, spec.model.id)
    if checkpoint is None:
        raise AlignmentError("checkpoint_missing", f"/model/id: {spec.model.id} does not exist any more")
    inputs.fetch_weights(parts, checkpoint, folder)
    return {spec.model.id: LocalSource(path=str(folder / inputs.PIPELINE))}


def _fetch_checkpoints(parts: WorkerParts, claim: Claim, workdir: Path) -> bool:
    """Fetch the newest whole checkpoint, and those before it that may be the result; False when there is none."""
    before_step = None
    while needed := outputs.checkpoints_to_resume(parts.store, claim.job.id, before_step):
        *may_be_result, latest = needed
        if _fetch_checkpoint(parts, claim, workdir, latest):
            for checkpoint in may_be_result:
                _fetch_checkpoint(parts, claim, workdir, checkpoint)
            return True
        before_step = latest.step
    return False


def _fetch_start(parts: WorkerParts, claim: Claim, workdir: Path) -> list[str]:
    """The arguments of a run that begins from another job's checkpoint, which is fetched; none for a run that does not."""
    checkpoint_id = claim.job.resume_from_checkpoint_id
    if checkpoint_id is None:
        return []
    checkpoint = outputs.get_checkpoint(parts.store, claim.job.project_id, checkpoint_id)
    if checkpoint is None:
        raise AlignmentError("checkpoint_missing", f"resume_from: {checkpoint_id} does not exist any more")
    return ["--resume-from", str(inputs.fetch_checkpoint(parts, checkpoint, workdir / "resume_from"))]


def _fetch_checkpoint(parts: WorkerParts, claim: Claim, workdir: Path, checkpoint: CheckpointRecord) -> bool:
    """False, and a warning among the job's events, when a file of it is missing or altered."""
    try:
        inputs.fetch_checkpoint(parts, checkpoint, workdir)
    except AlignmentError as error:
        message = f"the checkpoint of step {checkpoint.step} is passed over: {error.message}"
        record_plain(parts, claim, [WarningRaised(code="checkpoint_passed_over", message=message)])
        return False
    log.info("checkpoint_fetched", step=checkpoint.step)
    return True


def _dataset(parts: WorkerParts, claim: Claim, pointer: str, dataset_id: str) -> DatasetRecord:
    dataset = datasets.get(parts.store, claim.job.project_id, dataset_id)
    if dataset is None:
        raise AlignmentError("dataset_missing", f"{pointer}: {dataset_id} does not exist any more")
    return dataset
