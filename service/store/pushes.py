"""Pushes: a checkpoint brought to a repository of the Hub, by a worker under a lease.

`queued -> running -> pushed | failed`. There is one for each checkpoint, repository and branch, however often it is asked for; a failed one
is tried again when it is asked for again. The functions take a `database.Store` first and return frozen records.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from alignment_core.spec.exports import ExportFormat
from service.store.database import Store, now
from service.store.deletion import InUse
from service.store.fence import Fenced
from service.store.ids import new_id
from service.store.lease_clock import lease_now
from service.store.models import Checkpoint, Push
from service.store.records.base import JobError
from service.store.records.checkpoints import CheckpointRecord, PushRecord, PushState
from service.store.traces import current_traceparent


def ask(
    store: Store, checkpoint: CheckpointRecord, repo_id: str, branch: str, format: ExportFormat, *, is_private: bool
) -> PushRecord | None:
    """The push, queued if nobody had asked for it, if it failed, or if it was in another form. The caller rings.

    None when the checkpoint is gone.
    """
    with store.write() as session:
        held = sa.select(Checkpoint.id).where(Checkpoint.id == checkpoint.id).with_for_update()
        if session.scalars(held).one_or_none() is None:  # held, so that two who ask at once make one
            return None
        place = (Push.checkpoint_id == checkpoint.id, Push.repo_id == repo_id, Push.branch == branch)
        row, time = session.scalars(sa.select(Push).where(*place)).one_or_none(), now(session)
        if row is None:
            row = Push(
                id=new_id("psh"),
                checkpoint_id=checkpoint.id,
                job_id=checkpoint.job_id,
                project_id=checkpoint.project_id,
                repo_id=repo_id,
                branch=branch,
                is_private=is_private,
                format=format,
                state="queued",
                attempt=0,
                num_lost=0,
                created_at=time,
                updated_at=time,
            )
            session.add(row)
        elif row.state == "failed" or (row.state == "pushed" and row.format != format):
            row.state, row.error, row.num_lost, row.updated_at = "queued", None, 0, time
            row.format, row.is_private = format, is_private
            row.traceparent = current_traceparent()
        session.flush()
        return record_of(row)


def get(store: Store, checkpoint_id: str, push_id: str) -> PushRecord | None:
    """A push of a checkpoint that the caller may see."""
    query = sa.select(Push).where(Push.id == push_id, Push.checkpoint_id == checkpoint_id)
    with store.read() as session:
        row = session.scalars(query).one_or_none()
        return None if row is None else record_of(row)


def list_pushes(store: Store, checkpoint_id: str) -> tuple[PushRecord, ...]:
    """The pushes of a checkpoint that the caller may see, in the order in which they were asked for."""
    with store.read() as session:
        query = sa.select(Push).where(Push.checkpoint_id == checkpoint_id).order_by(Push.id)
        return tuple(record_of(row) for row in session.scalars(query))


def delete(store: Store, checkpoint_id: str, push_id: str) -> str | None:
    """Forget a push of a checkpoint that the caller may see, one that waits with it; what the Hub has stays there.

    None where there is none; `InUse` while a worker makes it.
    """
    with store.write() as session:
        query = sa.select(Push).where(Push.id == push_id, Push.checkpoint_id == checkpoint_id)
        row = session.scalars(query.with_for_update()).one_or_none()
        if row is None:
            return None
        if row.state == "running":
            raise InUse("push_in_use", "a worker is making it; wait for its end")
        session.delete(row)
        return push_id


def next_pushes(store: Store, limit: int = 1) -> tuple[str, ...]:
    """Ids of the pushes that wait, in the order in which they were asked for."""
    with store.read() as session:
        return tuple(session.scalars(sa.select(Push.id).where(Push.state == "queued").order_by(Push.id).limit(limit)))


def claim(store: Store, push_id: str, worker_id: str, lease_seconds: float) -> PushRecord | None:
    """Take a queued push; None when it is not queued. `attempt` is the fencing token."""
    with store.write() as session:
        row = session.scalars(
            sa.update(Push)
            .where(Push.id == push_id, Push.state == "queued")
            .values(
                state="running",
                attempt=Push.attempt + 1,
                worker_id=worker_id,
                lease_expires_at=lease_now(session) + timedelta(seconds=lease_seconds),
                updated_at=now(session),
            )
            .returning(Push)
        ).one_or_none()
        return None if row is None else record_of(row)


def renew(store: Store, push_id: str, attempt: int, lease_seconds: float) -> bool:
    """Extend the lease; False when the attempt no longer holds the push, or the push is gone."""
    with store.write() as session:
        until = lease_now(session) + timedelta(seconds=lease_seconds)
        held = sa.update(Push).where(*_held(push_id, attempt)).values(lease_expires_at=until).returning(Push.id)
        return session.scalars(held).one_or_none() is not None


def finish(store: Store, push_id: str, attempt: int, commit: str, url: str) -> PushRecord:
    """The commit is on the Hub. Raises `Fenced`."""
    return _end(store, push_id, attempt, "pushed", {"commit": commit, "url": url})


def fail(store: Store, push_id: str, attempt: int, error: JobError) -> PushRecord:
    """It could not be pushed. Raises `Fenced`."""
    return _end(store, push_id, attempt, "failed", {"error": error.model_dump(mode="json")})


def give_back(store: Store, push_id: str, attempt: int) -> PushRecord:
    """Leave it to the next worker at once. The caller rings. Raises `Fenced`."""
    return _end(store, push_id, attempt, "queued", {})


def sweep(store: Store, max_attempts: int) -> None:
    """Queue the pushes of lost workers again, and fail those that nobody could make."""
    with store.write() as session:
        lost = sa.select(Push).where(Push.state == "running", Push.lease_expires_at < lease_now(session))
        for row in session.scalars(lost.order_by(Push.id).with_for_update(skip_locked=True)):
            row.num_lost += 1
            if row.num_lost >= max_attempts:
                row.error = _exhausted(row.num_lost).model_dump(mode="json")
            _release(session, row, "failed" if row.num_lost >= max_attempts else "queued")


def record_of(row: Push) -> PushRecord:
    """The frozen record of a row."""
    values: dict[str, Any] = {name: getattr(row, name) for name in PushRecord.model_fields.keys() - {"error"}}
    return PushRecord(**values, error=None if row.error is None else JobError.model_validate(row.error))


def _held(push_id: str, attempt: int) -> tuple[sa.ColumnElement[bool], ...]:
    return Push.id == push_id, Push.attempt == attempt, Push.state == "running"


def _end(store: Store, push_id: str, attempt: int, state: PushState, values: Mapping[str, Any]) -> PushRecord:
    with store.write() as session:
        row = session.scalars(sa.select(Push).where(*_held(push_id, attempt)).with_for_update()).one_or_none()
        if row is None:
            raise Fenced(push_id, attempt)
        for name, value in values.items():
            setattr(row, name, value)
        _release(session, row, state)
        return record_of(row)


def _release(session: Session, row: Push, state: PushState) -> None:
    row.state, row.updated_at = state, now(session)
    row.lease_expires_at = row.worker_id = None


def _exhausted(num_lost: int) -> JobError:
    message = f"{num_lost} workers were lost while they pushed it"
    return JobError(code="attempts_exhausted", message=message, category="system", retryable=True)
