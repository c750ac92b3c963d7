"""What a run leaves behind: metrics, checkpoints, samples, reports, logs.

The `put_*` functions are called by `events.record_event` inside its transaction. A step that a resumed attempt runs
again replaces what the lost attempt left for it, and keeps its id.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from alignment_core.events import CheckpointSaved, EvaluationCompleted, SamplesDrawn
from service.store import exports, keys
from service.store.database import Store, now
from service.store.fence import hold
from service.store.ids import new_id
from service.store.metric_extremes import keep_block
from service.store.metrics import PREFIXES
from service.store.models import Checkpoint, CheckpointFile, Job, JobLog, JobPins, Metric, Report, Sample, TrackingFile
from service.store.records.base import StoredFile
from service.store.records.checkpoints import CheckpointRecord
from service.store.records.runs import LogRecord, ReportRecord, SampleRecord
from service.store.removals import keep, supersede

LOG_TAIL_CHARACTERS = 64 * 1024


def put_metrics(
    session: Session, job: Job, split: str, step: int, metrics: Mapping[str, float | None], time: datetime
) -> None:
    """Store the figures of a step, and their names with the job, which then knows them without reading any.

    They join what another event of the same attempt said of the step; those of an attempt before go.
    """
    told = {name: _finite(value) for name, value in metrics.items()}
    if new := {PREFIXES[split] + name for name in told} - set(job.metric_names):
        job.metric_names = sorted({*job.metric_names, *new})
    row = session.get(Metric, (job.id, split, step))
    if row is None:
        row = Metric(job_id=job.id, split=split, step=step, project_id=job.project_id)
        session.add(row)
    row.figures = {**row.figures, **told} if row.attempt == job.attempt else told
    row.attempt, row.time = job.attempt, time
    keep_block(session, job, split, step)


def put_checkpoint(session: Session, job: Job, event: CheckpointSaved, files: Sequence[StoredFile]) -> str:
    """Store the checkpoint with its files, in place of one that a lost attempt saved at the same step; returns its id."""
    assert files, "a checkpoint is recorded once its files are in the object store"
    old_id, old_attempt = session.execute(
        sa.select(Checkpoint.id, Checkpoint.attempt).where(Checkpoint.job_id == job.id, Checkpoint.step == event.step)
    ).one_or_none() or (None, None)
    if old_attempt is not None and old_attempt != job.attempt:
        supersede(session, keys.checkpoint_prefix(job.project_id, job.id, event.step, old_attempt))
    if old_id is not None:
        session.execute(sa.delete(CheckpointFile).where(CheckpointFile.checkpoint_id == old_id))
        exports.forget(session, old_id)  # they were made of the files that go
    if event.is_best:  # there is one at a time
        session.execute(sa.update(Checkpoint).where(Checkpoint.job_id == job.id).values(is_best=False))
    pins = session.get(JobPins, job.id)
    checkpoint = session.merge(
        Checkpoint(
            id=old_id or new_id("ckpt"),
            job_id=job.id,
            project_id=job.project_id,
            step=event.step,
            attempt=job.attempt,
            kind=event.kind,
            is_final=event.is_final,
            is_best=event.is_best,
            size_bytes=sum(file.size_bytes for file in files),
            created_at=event.time,
        )
    )
    if old_id is None and pins is not None and event.step in pins.steps:  # else its owner may have unpinned it
        checkpoint.is_pinned = True
    session.flush()
    session.add_all(CheckpointFile(checkpoint_id=checkpoint.id, **file.model_dump()) for file in files)
    if event.result_step is not None:
        result = session.scalars(
            sa.select(Checkpoint).where(Checkpoint.job_id == job.id, Checkpoint.step == event.result_step)
        ).one_or_none()
        if result is not None and pins is not None and pins.result and job.result_checkpoint_id != result.id:
            result.is_pinned = True
        job.result_checkpoint_id = None if result is None else result.id
    return checkpoint.id


def put_sample(session: Session, job: Job, event: SamplesDrawn, files: Sequence[StoredFile]) -> None:
    (file,) = files
    old_id, old_key = session.execute(
        sa.select(Sample.id, Sample.object_key).where(Sample.job_id == job.id, Sample.step == event.step)
    ).one_or_none() or (None, None)
    if old_key is not None and old_key != file.object_key:
        supersede(session, old_key)
    keep(session, file.object_key)  # one of this step was deleted, and the same attempt has drawn it again
    session.merge(
        Sample(
            id=old_id or new_id("smp"),
            job_id=job.id,
            project_id=job.project_id,
            step=event.step,
            attempt=job.attempt,
            prompts=event.prompts,
            grid=None if event.grid is None else event.grid.model_dump(),
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            object_key=file.object_key,
            created_at=event.time,
        )
    )


def put_tracking_file(session: Session, job: Job, files: Sequence[StoredFile]) -> None:
    (file,) = files
    session.merge(TrackingFile(job_id=job.id, project_id=job.project_id, **file.model_dump()))


def put_report(session: Session, job: Job, event: EvaluationCompleted, files: Sequence[StoredFile]) -> None:
    """Store the report; `files` is its page, or nothing where the run wrote none."""
    (page,) = files or (None,)
    old_key = session.scalars(
        sa.select(Report.page_object_key).where(Report.job_id == job.id, Report.step == event.step)
    ).one_or_none()
    if old_key is not None and (page is None or old_key != page.object_key):
        supersede(session, old_key)
    session.merge(
        Report(
            job_id=job.id,
            step=event.step,
            project_id=job.project_id,
            attempt=job.attempt,
            report=event.report,
            page_size_bytes=None if page is None else page.size_bytes,
            page_sha256=None if page is None else page.sha256,
            page_object_key=None if page is None else page.object_key,
            created_at=event.time,
        )
    )


def put_log(store: Store, job_id: str, attempt: int, text: str) -> None:
    """Keep the end of what the attempt's process printed. Raises `Fenced`."""
    kept = text[-LOG_TAIL_CHARACTERS:].replace("\0", "\N{REPLACEMENT CHARACTER}")  # PostgreSQL's text holds no NUL
    with store.write() as session:
        job = hold(session, job_id, attempt)
        session.merge(
            JobLog(job_id=job_id, attempt=attempt, project_id=job.project_id, text=kept, updated_at=now(session))
        )


def list_checkpoints(store: Store, project_id: str, job_id: str) -> tuple[CheckpointRecord, ...]:
    """The job's checkpoints with their files, the earliest step first."""
    query = sa.select(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.project_id == project_id)
    with store.read() as session:
        return tuple(_with_files(session, row) for row in session.scalars(query.order_by(Checkpoint.step)).all())


def get_checkpoint(store: Store, project_id: str, checkpoint_id: str) -> CheckpointRecord | None:
    query = sa.select(Checkpoint).where(Checkpoint.id == checkpoint_id, Checkpoint.project_id == project_id)
    with store.read() as session:
        row = session.scalars(query).one_or_none()
        return None if row is None else _with_files(session, row)


def latest_checkpoint(store: Store, job_id: str) -> CheckpointRecord | None:
    """The checkpoint with the highest step: where a worker's next attempt goes on."""
    query = sa.select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step.desc()).limit(1)
    with store.read() as session:
        row = session.scalars(query).one_or_none()
        return None if row is None else _with_files(session, row)


def checkpoints_to_resume(store: Store, job_id: str, before_step: int | None = None) -> tuple[CheckpointRecord, ...]:
    """What a worker's next attempt needs: those that may be the job's result, and as the last the latest, where it goes on.

    With `before_step` they are from before that step, whose checkpoint turned out not to be whole.
    """
    query = sa.select(Checkpoint).where(Checkpoint.job_id == job_id)
    if before_step is not None:
        query = query.where(Checkpoint.step < before_step)
    with store.read() as session:
        rows = session.scalars(query.order_by(Checkpoint.step)).all()
        result = session.scalars(sa.select(Job.result_checkpoint_id).where(Job.id == job_id)).one_or_none()
        needed = [row for row in rows if row is rows[-1] or row.is_best or row.id == result]
        return tuple(_with_files(session, row) for row in needed)


def list_samples(store: Store, project_id: str, job_id: str) -> tuple[SampleRecord, ...]:
    """The job's sample images, the earliest step first."""
    query = sa.select(Sample).where(Sample.job_id == job_id, Sample.project_id == project_id).order_by(Sample.step)
    with store.read() as session:
        return tuple(SampleRecord.model_validate(row) for row in session.scalars(query))


def list_tracking_files(store: Store, project_id: str, job_id: str) -> tuple[StoredFile, ...]:
    """The job's TensorBoard files, in the order in which they are read."""
    query = sa.select(TrackingFile).where(TrackingFile.job_id == job_id, TrackingFile.project_id == project_id)
    with store.read() as session:
        rows = session.scalars(query.order_by(TrackingFile.path)).all()
        return tuple(StoredFile(**{name: getattr(row, name) for name in StoredFile.model_fields}) for row in rows)


def get_report(store: Store, project_id: str, job_id: str, step: int | None = None) -> ReportRecord | None:
    """The latest evaluation report of the job, or that of a step; None while there is none."""
    query = sa.select(Report).where(Report.job_id == job_id, Report.project_id == project_id)
    if step is not None:
        query = query.where(Report.step == step)
    with store.read() as session:
        row = session.scalars(query.order_by(Report.step.desc()).limit(1)).one_or_none()
        return None if row is None else _report_of(row)


def list_logs(store: Store, project_id: str, job_id: str) -> tuple[LogRecord, ...]:
    """What the job's attempts printed last, the first attempt first."""
    query = sa.select(JobLog).where(JobLog.job_id == job_id, JobLog.project_id == project_id).order_by(JobLog.attempt)
    with store.read() as session:
        return tuple(LogRecord.model_validate(row) for row in session.scalars(query))


def _report_of(row: Report) -> ReportRecord:
    page = None
    if row.page_object_key is not None:
        assert row.page_size_bytes is not None
        assert row.page_sha256 is not None
        page = StoredFile(
            path="report.html",
            size_bytes=row.page_size_bytes,
            sha256=row.page_sha256,
            object_key=row.page_object_key,
        )
    values: dict[str, Any] = {field: getattr(row, field) for field in ReportRecord.model_fields if field != "page"}
    return ReportRecord(**values, page=page)


def _with_files(session: Session, row: Checkpoint) -> CheckpointRecord:
    files = session.scalars(
        sa.select(CheckpointFile).where(CheckpointFile.checkpoint_id == row.id).order_by(CheckpointFile.path)
    ).all()
    values: dict[str, Any] = {field: getattr(row, field) for field in CheckpointRecord.model_fields if field != "files"}
    return CheckpointRecord(**values, files=tuple(StoredFile.model_validate(file) for file in files))


def _finite(value: float | None) -> float | None:
    return value if value is not None and abs(value) < float("inf") else None
