"""New rows of the queue: what they need is held until all see them, and what all of them begin with."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from alignment_core.spec import Contest, JobSpec
from service.store import quotas
from service.store.database import now
from service.store.models import LONGEST_MODEL, Dataset, Job, JobLabel, PromptSet


class DatasetGone(Exception):  # noqa: N818 - a state of affairs, read as one
    """A dataset, or a prompt set, that the job needs is not there any more."""


def hold_uploads(session: Session, table: type[Dataset] | type[PromptSet], project_id: str, ids: Sequence[str]) -> None:
    """Keep what was uploaded from being deleted before the job that needs it is there for all to see."""
    wanted = sa.select(table.id).where(table.project_id == project_id, table.id.in_(ids))
    found = session.scalars(wanted.order_by(table.id).with_for_update(read=True)).all() if ids else []
    if missing := set(ids) - set(found):
        raise DatasetGone(min(missing))


def new_row(
    session: Session,
    project_id: str,
    row_id: str,
    spec: JobSpec | Contest,
    *,
    method: str,
    model: str,
    name: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Job:
    """A row that waits from now on, with the resolved spec; `add` stores it. Raises `QuotaExceeded` where the project may have no more."""
    quotas.admit_job(session, project_id)
    time, resolved = now(session), spec.resolved()
    return Job(
        id=row_id,
        project_id=project_id,
        name=name,
        labels=dict(metadata or {}),
        spec=resolved.model_dump(mode="json"),
        spec_sha256=resolved.sha256(),
        method=method,
        model=model[:LONGEST_MODEL],
        processes=resolved.resources.processes,
        state="queued",
        step=0,
        attempt=0,
        num_lost=0,
        last_seq=0,
        cancel_requested=False,
        created_at=time,
        queued_at=time,
        updated_at=time,
    )


def add(session: Session, row: Job) -> None:
    """Store a new row, its metadata also where an index finds it."""
    session.add(row)
    session.flush()
    labels = row.labels.items()
    session.add_all(JobLabel(job_id=row.id, project_id=row.project_id, key=key, value=value) for key, value in labels)
