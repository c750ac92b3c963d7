"""The audit log, read and cut: the one place that takes rows out of it. `audit.py` puts them in."""

from datetime import datetime, timedelta

import sqlalchemy as sa

from service.store import audit
from service.store.database import Store, now
from service.store.models import AuditEntry
from service.store.records.base import Slice
from service.store.records.projects import AuditRecord, Outcome


def list_entries(
    store: Store,
    project_id: str,
    *,
    after_id: str | None = None,
    limit: int = 20,
    key_id: str | None = None,
    object_id: str | None = None,
    action: str | None = None,
    outcome: Outcome | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Slice[AuditRecord]:
    """The project's rows, newest first, older than `after_id`; every filter that is given must hold."""
    query = sa.select(AuditEntry).where(AuditEntry.project_id == project_id).order_by(AuditEntry.id.desc())
    for column, value in ((AuditEntry.key_id, key_id), (AuditEntry.action, action), (AuditEntry.outcome, outcome)):
        query = query if value is None else query.where(column == value)
    if after_id is not None:
        query = query.where(AuditEntry.id < after_id)
    if object_id is not None:  # too long to occur by chance
        query = query.where(sa.cast(AuditEntry.object_ids, sa.Text).contains(object_id, autoescape=True))
    if since is not None:
        query = query.where(AuditEntry.time >= since)
    if until is not None:
        query = query.where(AuditEntry.time < until)
    with store.read() as session:
        rows = session.scalars(query.limit(limit + 1)).all()
        return Slice(tuple(map(AuditRecord.model_validate, rows[:limit])), has_more=len(rows) > limit)


def forget_old(store: Store, keep_days: float) -> int:
    """Take out what is older than `keep_days`, for the owner's sweep; how many rows went."""
    with store.write() as session:
        return audit.forget_before(session, now(session) - timedelta(days=keep_days))
