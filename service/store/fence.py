"""The fence: a write names the attempt that makes it, and an attempt that no longer holds the job changes nothing."""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.models import Job
from service.store.states import HELD


class Fenced(Exception):  # noqa: N818 - a state of affairs, read as one
    """The attempt no longer holds the job: its lease ended, or the job did."""

    def __init__(self, resource_id: str, attempt: int) -> None:
        super().__init__(f"attempt {attempt} no longer holds {resource_id}")
        self.resource_id = resource_id
        self.attempt = attempt


def held_by(job_id: str, attempt: int) -> tuple[sa.ColumnElement[bool], ...]:
    """The conditions under which `attempt` may write to the job."""
    return Job.id == job_id, Job.attempt == attempt, Job.state.in_(HELD)


def hold(session: Session, job_id: str, attempt: int) -> Job:
    """The job's row, locked until the transaction ends; raises `Fenced` when the attempt does not hold it."""
    row = session.scalars(sa.select(Job).where(*held_by(job_id, attempt)).with_for_update()).one_or_none()
    if row is None:
        raise Fenced(job_id, attempt)
    return row
