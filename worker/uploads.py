"""What a training process saved, put into the object store: checkpoints, pictures and report pages."""

import json
from functools import partial
from pathlib import Path

from alignment_core.errors import AlignmentError
from alignment_core.events import (
    CandidatesDrawn,
    CheckpointSaved,
    EvaluationCompleted,
    FileRecord,
    SamplesDrawn,
    TrackingFileWritten,
)
from service.store import keys
from service.store.checksums import crc32_of
from service.store.objects import CHUNK_BYTES
from service.store.records.base import StoredFile
from service.store.records.jobs import Claim
from worker.inputs import sha256_of
from worker.parts import WorkerParts
from worker.patience import wait_out

MANIFEST = "manifest.json"


def upload_checkpoint(parts: WorkerParts, claim: Claim, workdir: Path, event: CheckpointSaved) -> list[StoredFile]:
    """Upload every file that the manifest lists, then the manifest, as the mark that the rest is there."""
    folder = _inside(workdir, event.path)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    records = [FileRecord.model_validate(record) for record in manifest["files"]]
    prefix = keys.checkpoint_prefix(claim.job.project_id, claim.job.id, event.step, claim.attempt)
    stored = []
    for record in [*records, _record_of(folder, MANIFEST)]:
        path = _inside(folder, record.path)
        if path.stat().st_size != record.size_bytes:
            message = f"{event.path}/{record.path}: the manifest says {record.size_bytes} bytes"
            raise AlignmentError("checkpoint_altered", message, category="system")
        _put(parts, prefix + record.path, path)
        stored.append(StoredFile(**record.model_dump(), object_key=prefix + record.path, crc32=_crc32_of(path)))
    return stored


def upload_sample(parts: WorkerParts, claim: Claim, workdir: Path, event: SamplesDrawn) -> list[StoredFile]:
    """Upload the picture that the event speaks of."""
    record = _record_of(workdir, event.path)
    key = keys.sample_key(claim.job.project_id, claim.job.id, event.step, claim.attempt)
    _put(parts, key, _inside(workdir, event.path))
    return [StoredFile(**record.model_dump(), object_key=key)]


def upload_tracking_file(
    parts: WorkerParts, claim: Claim, workdir: Path, event: TrackingFileWritten
) -> list[StoredFile]:
    """Upload an event file of TensorBoard, under a name by which the files of all attempts are in order."""
    record, path = _record_of(workdir, event.path), _inside(workdir, event.path)
    number = path.name.rpartition(".")[2]
    key = keys.tensorboard_key(claim.job.project_id, claim.job.id, claim.attempt, path.name)
    _put(parts, key, path)
    name = f"events.out.tfevents.{claim.attempt:010d}.{number}"
    return [StoredFile(**{**record.model_dump(), "path": name}, object_key=key, crc32=_crc32_of(path))]


def _crc32_of(path: Path) -> int:
    with path.open("rb") as file:  # archives have it in their headers
        return crc32_of(iter(partial(file.read, CHUNK_BYTES), b""))


def upload_page(parts: WorkerParts, claim: Claim, workdir: Path, event: EvaluationCompleted) -> list[StoredFile]:
    """Upload the report's page, if the run wrote one."""
    if event.page is None:
        return []
    record = _record_of(workdir, event.page)
    key = keys.report_page_key(claim.job.project_id, claim.job.id, event.step, claim.attempt)
    _put(parts, key, _inside(workdir, event.page))
    return [StoredFile(**record.model_dump(), object_key=key)]


def upload_of_proof(parts: WorkerParts, claim: Claim, workdir: Path, path: str) -> list[StoredFile]:
    """Upload what an evaluation has drawn, or its scores."""
    record = _record_of(workdir, path)
    key = keys.proof_file_key(claim.job.project_id, claim.job.id, path, claim.attempt)
    _put(parts, key, _inside(workdir, path))
    return [StoredFile(**record.model_dump(), object_key=key)]


def upload_candidates(parts: WorkerParts, claim: Claim, workdir: Path, event: CandidatesDrawn) -> list[StoredFile]:
    """Upload the images that the event speaks of, under names that say which they are."""
    stored = []
    for one in event.images:
        record = _record_of(workdir, one.path)
        name = f"{event.contender}/{one.position:05d}-{one.number:02d}.png"
        key = keys.candidate_key(claim.job.project_id, claim.job.id, name, claim.attempt)
        _put(parts, key, _inside(workdir, one.path))
        stored.append(StoredFile(**record.model_dump(), object_key=key))
    return stored


def _put(parts: WorkerParts, key: str, path: Path) -> None:
    wait_out(lambda: parts.objects.put_file(key, path), parts.settings, parts.asked, parts.waited)


def _record_of(folder: Path, relative: str) -> FileRecord:
    path = _inside(folder, relative)
    return FileRecord(path=relative, size_bytes=path.stat().st_size, sha256=sha256_of(path))


def _inside(folder: Path, relative: str) -> Path:
    """The file itself; refuses a path or a link that leads out of the folder, so that nothing else can be published."""
    path = (folder / relative).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise AlignmentError("path_outside", f"{relative!r} lies outside of the run's folder", category="system")
    return path
