"""The audit log: who did what, when, and how it ended. Rows are only ever added; the owner's sweep takes out old ones.

A request is a `Deed`. The first transaction of it that changes something of the project adds the row, so that neither is
there without the other. What changed nothing, as a refusal, is added when it is answered, with its status; so is what went
wrong after the change. Workers do nothing in anybody's name, and are not written down.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event as sa_event
from sqlalchemy.orm import ORMExecuteState, Session

from service.store.ids import new_id
from service.store.models import (
    AuditEntry,
    Card,
    HostClock,
    IdempotencyKey,
    LinkSecret,
    MeasuredRate,
    Model,
    Removal,
    SubmitCount,
    WebhookDelivery,
)
from service.store.records.projects import Outcome

BESIDE = (
    AuditEntry,
    Card,
    HostClock,
    IdempotencyKey,
    LinkSecret,
    MeasuredRate,
    Model,
    Removal,
    SubmitCount,
    WebhookDelivery,
)
"""What the service remembers for itself: no change of anything that is the project's."""

_TOUCHED = "touched"  # in the `info` of a session: ids of new rows, in their order


@dataclass
class Deed:
    """What is being done, in whose name. It is nobody's, and not written down, until `project_id` is set."""

    action: str
    request_id: str | None = None
    remote: str | None = None
    object_ids: list[str] = field(default_factory=list)
    project_id: str | None = None
    key_id: str | None = None
    is_recorded: bool = False


current: ContextVar[Deed | None] = ContextVar("deed", default=None)
"""The deed of this request; threads that an endpoint runs in inherit it."""


def watch(session: Session) -> None:
    """Note what a transaction changes, if that is somebody's deed."""
    deed = current.get()
    if deed is not None and deed.project_id is not None and not deed.is_recorded:
        sa_event.listen(session, "after_flush", _after_flush)
        sa_event.listen(session, "do_orm_execute", _on_statement)


def record_change(session: Session, clock: Callable[[Session], datetime]) -> None:
    """Add the row of a deed to the transaction that changes something, before it is committed."""
    deed = current.get()
    if deed is None or deed.project_id is None or deed.is_recorded:
        return
    session.flush()
    if (touched := session.info.get(_TOUCHED)) is None:
        return
    deed.object_ids += [one for one in touched if one not in deed.object_ids]
    add(session, deed, "done", None, clock(session))
    session.flush()
    deed.is_recorded = True


def touch(session: Session) -> None:
    """Say that the transaction changes something of the project, where what it changes is the service's own beside others' deeds."""
    session.info.setdefault(_TOUCHED, [])


@contextmanager
def beside() -> Generator[None]:
    """What a request only takes in hand, or gives back, is no change that the log would have: what it does with it is."""
    token = current.set(None)
    try:
        yield
    finally:
        current.reset(token)


def add(session: Session, deed: Deed, outcome: Outcome, status: int | None, time: datetime) -> None:
    """Add a row; `status` is the answer's, where there has been one."""
    assert deed.project_id is not None
    row = AuditEntry(
        id=new_id("aud"),
        project_id=deed.project_id,
        time=time,
        key_id=deed.key_id,
        remote=deed.remote,
        action=deed.action,
        object_ids=list(deed.object_ids),
        outcome=outcome,
        status=status,
        request_id=deed.request_id,
    )
    session.add(row)


def was_refused_since(session: Session, deed: Deed, status: int, time: datetime) -> bool:
    """Whether the log says since `time` that this key was answered so on this route."""
    query = (
        sa.select(AuditEntry.id)
        .where(AuditEntry.project_id == deed.project_id, AuditEntry.time >= time)
        .where(AuditEntry.key_id == deed.key_id, AuditEntry.action == deed.action, AuditEntry.status == status)
    )
    return session.scalars(query.limit(1)).one_or_none() is not None


def forget_before(session: Session, time: datetime) -> int:
    """Take out rows from before `time`. Only a transaction that says so may (the database's own trigger on PostgreSQL)."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(sa.text("SET LOCAL attune.forgets_audit = 'on'"))
    result: Any = session.execute(sa.delete(AuditEntry).where(AuditEntry.time < time))
    return result.rowcount


def _after_flush(session: Session, _context: Any) -> None:
    rows = [row for row in (*session.new, *session.dirty, *session.deleted) if not isinstance(row, BESIDE)]
    if rows:
        touched = session.info.setdefault(_TOUCHED, [])
        touched += [row.id for row in session.new if _has_id(row)]


def _on_statement(state: ORMExecuteState) -> None:
    changes, mapper = state.is_update or state.is_delete or state.is_insert, state.bind_mapper
    if changes and mapper is not None and not issubclass(mapper.class_, BESIDE):
        touch(state.session)


def _has_id(row: Any) -> bool:
    """Whether it is a thing of its own: events and labels are a job's."""
    return [column.key for column in sa.inspect(row).mapper.primary_key] == ["id"] and not isinstance(row, BESIDE)
