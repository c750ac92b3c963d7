"""Single events: by the id that a client holds, or the latest of a type."""

import sqlalchemy as sa

from service.store.database import Store
from service.store.models import JobEvent
from service.store.records.runs import EventRecord


def sequence_of(store: Store, project_id: str, job_id: str, event_id: str) -> int | None:
    """The number of an event within its job, or None when the project's job has no such event."""
    query = sa.select(JobEvent.seq).where(
        JobEvent.id == event_id, JobEvent.job_id == job_id, JobEvent.project_id == project_id
    )
    with store.read() as session:
        return session.scalars(query).one_or_none()


def latest_of_type(store: Store, project_id: str, job_id: str, event_type: str) -> EventRecord | None:
    """The job's last event of a type, such as `run_started`; None before the first."""
    query = (
        sa.select(JobEvent)
        .where(JobEvent.job_id == job_id, JobEvent.project_id == project_id, JobEvent.type == event_type)
        .order_by(JobEvent.seq.desc())
        .limit(1)
    )
    with store.read() as session:
        row = session.scalars(query).one_or_none()
        return None if row is None else EventRecord.model_validate(row)
