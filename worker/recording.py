"""What a run says, kept: events become rows, in order, and files become objects before anything speaks of them."""

from pathlib import Path

import structlog

from alignment_core.events import (
    CandidatesDrawn,
    CheckpointSaved,
    EvaluationCompleted,
    Event,
    ImagesScored,
    ProofCompleted,
    SamplesDrawn,
    TrackingFileWritten,
)
from service.store import events, outputs
from service.store.records.base import StoredFile
from service.store.records.jobs import Claim
from worker import uploads
from worker.launchers.contract import Gang
from worker.parts import WorkerParts
from worker.patience import patiently

WithFiles = (
    CheckpointSaved
    | SamplesDrawn
    | TrackingFileWritten
    | EvaluationCompleted
    | ImagesScored
    | ProofCompleted
    | CandidatesDrawn
)

log = structlog.get_logger()


def record(parts: WorkerParts, claim: Claim, workdir: Path, batch: list[Event]) -> None:
    """Turn events into rows, in order; what speaks of files is recorded once they are in the object store."""
    plain: list[Event] = []
    for event in batch:
        if isinstance(event, WithFiles):
            record_plain(parts, claim, plain)
            plain = []
            _record_with_files(parts, claim, workdir, event)
        else:
            plain.append(event)
    record_plain(parts, claim, plain)


def record_plain(parts: WorkerParts, claim: Claim, batch: list[Event]) -> None:
    if batch:
        patiently(
            lambda: events.record_events(parts.store, claim.job.id, claim.attempt, batch), parts.settings.lease_seconds
        )


def _record_with_files(parts: WorkerParts, claim: Claim, workdir: Path, event: WithFiles) -> None:
    with parts.traces.storing(claim.job.id, event):
        files = _upload(parts, claim, workdir, event)
    if files or isinstance(event, EvaluationCompleted):
        patiently(
            lambda: events.record_event(parts.store, claim.job.id, claim.attempt, event, files),
            parts.settings.lease_seconds,
        )


def _upload(parts: WorkerParts, claim: Claim, workdir: Path, event: WithFiles) -> list[StoredFile]:
    if isinstance(event, SamplesDrawn):
        return uploads.upload_sample(parts, claim, workdir, event)
    if isinstance(event, TrackingFileWritten):
        return uploads.upload_tracking_file(parts, claim, workdir, event)
    if isinstance(event, EvaluationCompleted):
        return uploads.upload_page(parts, claim, workdir, event)
    if isinstance(event, ImagesScored):
        return uploads.upload_of_proof(parts, claim, workdir, event.path)
    if isinstance(event, CandidatesDrawn):
        return uploads.upload_candidates(parts, claim, workdir, event)
    if isinstance(event, ProofCompleted):
        return uploads.upload_of_proof(parts, claim, workdir, event.scores)
    try:
        return uploads.upload_checkpoint(parts, claim, workdir, event)
    except FileNotFoundError:
        if (workdir / event.path).exists():
            raise
        log.warning("checkpoint_pruned_before_upload", step=event.step)  # a newer one is on its way
        return []


def keep_log(parts: WorkerParts, claim: Claim, gang: Gang) -> None:
    text = gang.log.read_end(outputs.LOG_TAIL_CHARACTERS)
    patiently(lambda: outputs.put_log(parts.store, claim.job.id, claim.attempt, text), parts.settings.lease_seconds)
