"""What a run says of itself: `record` turns its events into rows, `list_events` reads them back.

One transaction holds the fence, the event, and everything that follows from it: phase and progress, metrics,
checkpoints with their files, samples, the report.
"""

import json
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from alignment_core.events import (
    ActionAnswered,
    CandidatesDrawn,
    CandidatesStarted,
    CheckpointSaved,
    EvaluationCompleted,
    Event,
    ImagesScored,
    PhaseChanged,
    PrecisionMeasured,
    ProbeCompleted,
    ProofCompleted,
    ProofStarted,
    RunCompleted,
    RunFailed,
    RunStarted,
    SamplesDrawn,
    StepCompleted,
    TrackingFileWritten,
    VaePrecisionChosen,
    ValidationCompleted,
    VerificationCompleted,
    WarningRaised,
    event_to_json,
)
from service.store import actions, announcements, candidates, outputs, proofs
from service.store.database import Store, now
from service.store.fence import hold
from service.store.ids import new_id
from service.store.models import Job, JobEvent
from service.store.models.jobs import OF_EACH_STEP
from service.store.records.base import JobError, StoredFile
from service.store.records.runs import EventRecord
from service.store.states import TRANSITIONS


def record_event(
    store: Store, job_id: str, attempt: int, event: Event, files: Sequence[StoredFile] = ()
) -> EventRecord:
    """Record one event of a held job; `files` are what it speaks of, already in the object store.

    `CheckpointSaved` comes with every file of the checkpoint, `SamplesDrawn` with its one PNG, and `EvaluationCompleted`
    with its page. Raises `Fenced` when the attempt no longer holds the job; then nothing was written.
    """
    with store.write() as session:
        row = hold(session, job_id, attempt)
        row.updated_at = now(session)
        recorded = append(session, row, event)
        _apply(session, row, event, files)
        return recorded


def record_events(store: Store, job_id: str, attempt: int, events: Sequence[Event]) -> list[EventRecord]:
    """Record several events that speak of no files, in one transaction. Raises `Fenced`."""
    with store.write() as session:
        row = hold(session, job_id, attempt)
        row.updated_at = now(session)
        recorded = []
        for event in events:
            recorded.append(append(session, row, event))
            _apply(session, row, event, ())
        return recorded


def list_events(
    store: Store,
    project_id: str,
    job_id: str,
    after_seq: int = 0,
    limit: int = 100,
    *,
    types: Collection[str] | None = None,
    newest_first: bool = False,
) -> tuple[EventRecord, ...]:
    """Up to `limit` events after `after_seq`, oldest first; none for a job of another project.

    With `newest_first` those before it, from the last one on, where 0 is the end. `types` leaves all others out.
    """
    query = sa.select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.project_id == project_id)
    if newest_first:
        query = query.order_by(JobEvent.seq.desc()).where(JobEvent.seq < after_seq if after_seq else sa.true())
    else:
        query = query.order_by(JobEvent.seq).where(JobEvent.seq > after_seq)
    if types is not None:
        query = query.where(JobEvent.type.in_(types))
        if OF_EACH_STEP not in types:  # in these words it is the condition of an index
            query = query.where(JobEvent.type != sa.literal_column(f"'{OF_EACH_STEP}'"))
    query = query.limit(limit)
    with store.read() as session:
        return tuple(_record_of(row) for row in session.scalars(query))


# What rows of their own hold: each attempt would bring every prompt of the spec again to whoever follows the events.
HELD_ELSEWHERE = {
    "run_started": "spec",
    "evaluation_completed": "report",
    "proof_started": "spec",
    "proof_completed": "report",
    "verification_completed": "report",
    "candidates_started": "spec",
    "candidates_drawn": "images",
}


def first_of(store: Store, job_id: str, event_type: str) -> dict[str, Any] | None:
    """The first event of a type, as its run said it."""
    with store.read() as session:
        wanted = sa.select(JobEvent.data).where(JobEvent.job_id == job_id, JobEvent.type == event_type)
        return session.scalar(wanted.order_by(JobEvent.seq).limit(1))


def append(session: Session, row: Job, event: Event) -> EventRecord:
    """Add an event to a locked job under its next number."""
    row.last_seq += 1
    data = json.loads(event_to_json(event))
    data.pop(HELD_ELSEWHERE.get(event.type), None)
    recorded = JobEvent(
        id=new_id("evt"),
        job_id=row.id,
        project_id=row.project_id,
        seq=row.last_seq,
        attempt=row.attempt,
        type=event.type,
        data=data,
        time=event.time,
    )
    session.add(recorded)
    return _record_of(recorded)


def _apply(session: Session, row: Job, event: Event, files: Sequence[StoredFile]) -> None:
    match event:
        case RunStarted():
            row.state = TRANSITIONS["begin"].get(row.state, row.state)
            row.step, row.total_steps = event.resumed_from_step or 0, event.total_steps
        case ProofStarted() | CandidatesStarted():
            row.state = TRANSITIONS["begin"].get(row.state, row.state)
            row.step, row.total_steps = event.num_there, event.num_images
        case ImagesScored():
            row.step, row.total_steps = event.done, event.total
            proofs.put_shard(session, row, event, files)
        case CandidatesDrawn():
            row.step, row.total_steps = event.done, event.total
            candidates.put_images(session, row, event, files)
        case ProofCompleted() | VerificationCompleted():
            proofs.put_proof(session, row, event, files)
        case PhaseChanged():
            row.phase = event.phase
        case PrecisionMeasured():
            told = {"logit_error": event.logit_error, "logit_rms": event.logit_rms}
            metrics = {name: value for name, value in told.items() if value is not None}
            outputs.put_metrics(session, row, "train", 0, metrics, event.time)
        case VaePrecisionChosen() if (error := event.latent_errors.get(event.precision)) is not None:
            outputs.put_metrics(session, row, "train", 0, {"latent_error": error}, event.time)
        case StepCompleted():
            row.step, row.total_steps, row.eta_seconds = event.step, event.total_steps, event.eta_seconds
            outputs.put_metrics(session, row, "train", event.step, event.metrics, event.time)
        case ValidationCompleted():
            outputs.put_metrics(session, row, "validation", event.step, event.metrics, event.time)
        case ProbeCompleted():
            outputs.put_metrics(session, row, "held_out", event.step, event.metrics, event.time)
        case CheckpointSaved():
            row.latest_checkpoint_id = outputs.put_checkpoint(session, row, event, files)
        case SamplesDrawn():
            outputs.put_sample(session, row, event, files)
        case TrackingFileWritten():
            outputs.put_tracking_file(session, row, files)
        case EvaluationCompleted():
            outputs.put_report(session, row, event, files)
        case ActionAnswered():
            actions.answer(session, row, event)
        case WarningRaised():
            announcements.warned(session, row, event)
        case RunFailed():
            row.error = JobError.model_validate(
                event.model_dump(include={"code", "message", "category", "retryable", "hint"})
            ).model_dump(mode="json")
        case RunCompleted():
            row.state = TRANSITIONS["finalize"].get(row.state, row.state)
            row.eta_seconds = None
        case _:
            pass  # told, but changes no column


def _record_of(row: JobEvent) -> EventRecord:
    return EventRecord(
        id=row.id, job_id=row.job_id, seq=row.seq, attempt=row.attempt, type=row.type, data=row.data, time=row.time
    )
