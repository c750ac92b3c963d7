"""Exports: a checkpoint in another form, made by a worker under a lease once somebody has asked for it, then kept.

`queued -> running -> ready | failed`. There is one of each form of a checkpoint, whoever asks and how often; a failed one is
made again when it is asked for again. The functions take a `database.Store` first and return frozen records.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from alignment_core.spec.exports import ExportFormat
from service.store import keys, quotas
from service.store.database import Store, now
from service.store.fence import Fenced
from service.store.ids import new_id
from service.store.lease_clock import lease_now
from service.store.models import Checkpoint, Export
from service.store.records.base import JobError, StoredFile
from service.store.records.checkpoints import CheckpointRecord, ExportRecord, ExportState
from service.store.removals import to_remove
from service.store.traces import current_traceparent


def ask(
    store: Store, checkpoint: CheckpointRecord, format: ExportFormat, *, again: bool = False
) -> ExportRecord | None:
    """The export, queued if nobody had asked for it, or if it failed and is wanted `again`. The caller rings.

    None when the checkpoint is gone.
    """
    with store.write() as session:
        held = sa.select(Checkpoint.id).where(Checkpoint.id == checkpoint.id).with_for_update()
        if session.scalars(held).one_or_none() is None:  # held, so that two who ask at once make one
            return None
        row, time = _row(session, checkpoint.id, format), now(session)
        if row is None:
            quotas.admit_bytes(session, checkpoint.project_id)
            row = Export(
                id=new_id("exp"),
                checkpoint_id=checkpoint.id,
                job_id=checkpoint.job_id,
                project_id=checkpoint.project_id,
                format=format,
                state="queued",
                percent=0.0,
                files=[],
                attempt=0,
                num_lost=0,
                created_at=time,
                updated_at=time,
            )
            session.add(row)
        elif row.state == "failed" and again:
            row.state, row.error, row.percent, row.num_lost, row.updated_at = "queued", None, 0.0, 0, time
            row.traceparent = current_traceparent()
        session.flush()
        return record_of(row)


def get(store: Store, checkpoint_id: str, format: ExportFormat) -> ExportRecord | None:
    """The export of a checkpoint that the caller may see, or None while nobody has asked for it."""
    with store.read() as session:
        row = _row(session, checkpoint_id, format)
        return None if row is None else record_of(row)


def list_exports(store: Store, checkpoint_id: str) -> tuple[ExportRecord, ...]:
    """The exports of a checkpoint that the caller may see, in the order in which they were asked for."""
    with store.read() as session:
        query = sa.select(Export).where(Export.checkpoint_id == checkpoint_id).order_by(Export.id)
        return tuple(record_of(row) for row in session.scalars(query))


def claim(store: Store, export_id: str, worker_id: str, lease_seconds: float) -> ExportRecord | None:
    """Take a queued export to make it; None when it is not queued. `attempt` is the fencing token."""
    with store.write() as session:
        row = session.scalars(
            sa.update(Export)
            .where(Export.id == export_id, Export.state == "queued")
            .values(
                state="running",
                attempt=Export.attempt + 1,
                worker_id=worker_id,
                lease_expires_at=lease_now(session) + timedelta(seconds=lease_seconds),
                updated_at=now(session),
            )
            .returning(Export)
        ).one_or_none()
        return None if row is None else record_of(row)


def renew(store: Store, export_id: str, attempt: int, lease_seconds: float) -> bool:
    """Extend the lease; False when the attempt no longer holds the export, or the export is gone."""
    return _update(store, export_id, attempt, lambda session: {"lease_expires_at": _until(session, lease_seconds)})


def progressed(store: Store, export_id: str, attempt: int, percent: float) -> bool:
    """Note how far it is; False when the attempt no longer holds the export."""
    return _update(store, export_id, attempt, lambda session: {"percent": percent, "updated_at": now(session)})


def finish(store: Store, export_id: str, attempt: int, files: Sequence[StoredFile]) -> ExportRecord:
    """Every file is in the object store. Raises `Fenced`."""
    with store.write() as session:
        row = _hold(session, export_id, attempt)
        row.files, row.percent = [file.model_dump(mode="json") for file in files], 100.0
        row.size_bytes = sum(file.size_bytes for file in files)
        _release(session, row, "ready")
        return record_of(row)


def fail(store: Store, export_id: str, attempt: int, error: JobError) -> ExportRecord:
    """It could not be made. Raises `Fenced`."""
    with store.write() as session:
        row = _hold(session, export_id, attempt)
        row.error = error.model_dump(mode="json")
        _release(session, row, "failed")
        return record_of(row)


def give_back(store: Store, export_id: str, attempt: int) -> ExportRecord:
    """Leave it to the next worker at once, as one that shuts down does. The caller rings. Raises `Fenced`."""
    with store.write() as session:
        row = _hold(session, export_id, attempt)
        row.percent = 0.0
        _release(session, row, "queued")
        return record_of(row)


def sweep(store: Store, max_attempts: int) -> None:
    """Queue the exports of lost workers again, and fail those that nobody could make."""
    with store.write() as session:
        lost = sa.select(Export).where(Export.state == "running", Export.lease_expires_at < lease_now(session))
        for row in session.scalars(lost.order_by(Export.id).with_for_update(skip_locked=True)):
            row.num_lost, row.percent = row.num_lost + 1, 0.0
            if row.num_lost >= max_attempts:
                row.error = _exhausted(row.num_lost).model_dump(mode="json")
            _release(session, row, "failed" if row.num_lost >= max_attempts else "queued")


def forget(session: Session, checkpoint_id: str) -> None:
    """Drop the exports of a checkpoint whose files are replaced, with their objects."""
    rows = session.scalars(sa.select(Export).where(Export.checkpoint_id == checkpoint_id)).all()
    prefixes = [keys.export_prefix(row.project_id, row.job_id, checkpoint_id, row.id) for row in rows]
    for row in rows:
        session.delete(row)
    to_remove(session, prefixes, now(session))


def record_of(row: Export) -> ExportRecord:
    """The frozen record of a row."""
    plain = ExportRecord.model_fields.keys() - {"error", "files"}
    values: dict[str, Any] = {field: getattr(row, field) for field in plain}
    error = None if row.error is None else JobError.model_validate(row.error)
    return ExportRecord(**values, error=error, files=tuple(StoredFile.model_validate(file) for file in row.files))


def _row(session: Session, checkpoint_id: str, format: ExportFormat) -> Export | None:
    query = sa.select(Export).where(Export.checkpoint_id == checkpoint_id, Export.format == format)
    return session.scalars(query).one_or_none()


def _held(export_id: str, attempt: int) -> tuple[sa.ColumnElement[bool], ...]:
    return Export.id == export_id, Export.attempt == attempt, Export.state == "running"


def _hold(session: Session, export_id: str, attempt: int) -> Export:
    row = session.scalars(sa.select(Export).where(*_held(export_id, attempt)).with_for_update()).one_or_none()
    if row is None:
        raise Fenced(export_id, attempt)
    return row


def _update(store: Store, export_id: str, attempt: int, values: Any) -> bool:
    with store.write() as session:
        changed = sa.update(Export).where(*_held(export_id, attempt)).values(**values(session)).returning(Export.id)
        return session.scalars(changed).one_or_none() is not None


def _until(session: Session, lease_seconds: float) -> Any:
    return lease_now(session) + timedelta(seconds=lease_seconds)


def _release(session: Session, row: Export, state: ExportState) -> None:
    row.state, row.updated_at = state, now(session)
    row.lease_expires_at = row.worker_id = None


def _exhausted(num_lost: int) -> JobError:
    message = f"{num_lost} workers were lost while they made this export"
    return JobError(code="attempts_exhausted", message=message, category="system", retryable=True)
