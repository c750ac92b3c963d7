"""What is asked of a job while it runs: kept in its row until the run has answered, whatever becomes of the worker in between."""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from alignment_core.events import Action, ActionAnswered
from service.store.database import Store, now
from service.store.ids import new_id
from service.store.models import Job, JobAction
from service.store.records.jobs import ActionRecord, ActionState
from service.store.states import TERMINAL, InvalidTransition

MOST_WAITING = 100


class TooManyWaiting(Exception):  # noqa: N818 - a state of affairs, read as one
    """So many requests of the job are unanswered that another would only add to them."""


def ask(
    store: Store, project_id: str, job_id: str, action: Action, action_id: str | None = None
) -> ActionRecord | None:
    """Keep the request; `InvalidTransition` for a job that has ended, None when there is no such job.

    `action_id` is the id that `idempotency.begin` set aside: asking a second time returns the request that is there.
    """
    with store.write() as session:
        job = session.scalars(
            sa.select(Job).where(Job.id == job_id, Job.project_id == project_id).with_for_update()
        ).one_or_none()
        if job is None:
            return None
        if action_id is not None and (known := session.get(JobAction, action_id)) is not None:
            return _record_of(known, job)
        if job.state in TERMINAL or job.check_only:
            raise InvalidTransition(job.state, action, "only checked" if job.check_only else None)
        if session.scalars(sa.select(sa.func.count()).where(*_waiting(job_id))).one() >= MOST_WAITING:
            raise TooManyWaiting
        row = JobAction(
            id=action_id or new_id("act"), job_id=job_id, project_id=project_id, action=action, created_at=now(session)
        )
        session.add(row)
        return _record_of(row, job)


def waiting(store: Store, job_id: str) -> list[tuple[str, Action]]:
    """Ids and actions that the job's run has not answered, the first one first."""
    query = sa.select(JobAction.id, JobAction.action).where(*_waiting(job_id)).order_by(JobAction.id)
    with store.read() as session:
        return [(row.id, row.action) for row in session.execute(query)]


def list_actions(store: Store, project_id: str, job_id: str) -> list[ActionRecord]:
    """Everything that was asked of the job, the first one first."""
    query = sa.select(JobAction, Job).join(Job, Job.id == JobAction.job_id)
    mine = query.where(JobAction.job_id == job_id, JobAction.project_id == project_id).order_by(JobAction.id)
    with store.read() as session:
        return [_record_of(row, job) for row, job in session.execute(mine)]


def answer(session: Session, job: Job, event: ActionAnswered) -> None:
    """Note what the run answered, in the transaction that records its event; one that is not the job's is nobody's."""
    row = session.get(JobAction, event.id)
    if row is None or row.job_id != job.id or row.answered_at is not None:
        return
    row.step, row.metrics, row.refused = event.step, dict(event.metrics), event.refused
    row.answered_at = event.time


def _waiting(job_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    return JobAction.job_id == job_id, JobAction.answered_at.is_(None)


def _record_of(row: JobAction, job: Job) -> ActionRecord:
    return ActionRecord(
        id=row.id,
        job_id=row.job_id,
        action=row.action,
        state=_state_of(row, job),
        step=row.step,
        metrics=row.metrics or {},
        refused=row.refused,
        created_at=row.created_at,
        answered_at=row.answered_at,
    )


def _state_of(row: JobAction, job: Job) -> ActionState:
    if row.answered_at is not None:
        return "done" if row.refused is None else "refused"
    # a failed job that is resumed has a run again, which then answers
    return "unanswered" if job.state in TERMINAL else "waiting"
