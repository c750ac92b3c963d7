"""What a job was forked from, and what was forked from it: by `POST .../fork`, by `resume_from`, or by a spec that names a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, load_only

from alignment_core.spec import CheckpointSource, JobSpec
from service.store.database import Store
from service.store.models import Checkpoint, Job
from service.store.records.jobs import ForkMode, ForkReference, ParentRecord, RelativeRecord

MOST_ANCESTORS = 100
MOST_CHILDREN = 100


class CheckpointGone(Exception):  # noqa: N818 - a state of affairs, read as one
    """The checkpoint that the job should begin from is not there any more."""


@dataclass(frozen=True)
class Beginning:
    """The checkpoint that a job begins from, and what its reference then is: the model without it, or with it."""

    checkpoint_id: str
    mode: ForkMode
    reference: ForkReference | None


def beginning_of(spec: JobSpec, resume_from_checkpoint_id: str | None) -> Beginning | None:
    """None for a job that begins from nothing that another left. One that goes on has the reference that its parent had."""
    if resume_from_checkpoint_id is not None:
        return Beginning(resume_from_checkpoint_id, "resume", None)
    start = spec.start and spec.start.resolved()
    if start is not None and isinstance(start.lora, CheckpointSource):
        return Beginning(start.lora.id, "warm_start", "base" if start.initial == "base" else "checkpoint")
    if isinstance(spec.model, CheckpointSource):
        return Beginning(spec.model.id, "warm_start", "checkpoint")
    return None


def held_parent(session: Session, project_id: str, beginning: Beginning | None) -> dict[str, Any]:
    """The columns that say where a job begins, its parent kept from being deleted until the job is there for all to see."""
    if beginning is None:
        return {}
    wanted = sa.select(Checkpoint).where(Checkpoint.id == beginning.checkpoint_id, Checkpoint.project_id == project_id)
    found = session.scalars(wanted.with_for_update(read=True)).one_or_none()
    if found is None:
        raise CheckpointGone(beginning.checkpoint_id)
    return {
        "parent_job_id": found.job_id,
        "parent_checkpoint_id": found.id,
        "parent_step": found.step,
        "fork_mode": beginning.mode,
        "fork_reference": beginning.reference,
    }


def hold_checkpoints(session: Session, project_id: str, ids: Sequence[str]) -> None:
    """Keep checkpoints from being deleted before the evaluation that names them is there for all to see."""
    wanted = sa.select(Checkpoint.id).where(Checkpoint.project_id == project_id, Checkpoint.id.in_(ids))
    found = session.scalars(wanted.order_by(Checkpoint.id).with_for_update(read=True)).all() if ids else []
    if missing := set(ids) - set(found):
        raise CheckpointGone(min(missing))


def parent_of(row: Job) -> ParentRecord | None:
    if (
        row.parent_job_id is None
        or row.parent_checkpoint_id is None
        or row.parent_step is None
        or row.fork_mode is None
    ):
        return None
    return ParentRecord(
        job_id=row.parent_job_id,
        checkpoint_id=row.parent_checkpoint_id,
        step=row.parent_step,
        mode=row.fork_mode,
        reference=row.fork_reference,
    )


def ancestors(store: Store, project_id: str, job_id: str) -> list[ParentRecord]:
    """What the job was forked from, what that was forked from, and so on; it ends at a job that was deleted."""
    found: list[ParentRecord] = []
    with store.read() as session:
        while len(found) < MOST_ANCESTORS:
            row = session.scalars(
                sa.select(Job).where(Job.id == job_id, Job.project_id == project_id).options(_LINKS)
            ).one_or_none()
            parent = None if row is None else parent_of(row)
            if parent is None:
                break
            found.append(parent)
            job_id = parent.job_id
    return found


def children(store: Store, project_id: str, job_id: str) -> list[RelativeRecord]:
    """What was forked from the job's checkpoints, the newest first."""
    query = sa.select(Job).where(Job.parent_job_id == job_id, Job.project_id == project_id).options(_LINKS)
    with store.read() as session:
        rows = session.scalars(query.order_by(Job.id.desc()).limit(MOST_CHILDREN)).all()
        return [
            RelativeRecord(job_id=row.id, name=row.name, state=row.state, parent=parent)
            for row in rows
            if (parent := parent_of(row)) is not None
        ]


_LINKS = load_only(
    Job.name,
    Job.state,
    Job.parent_job_id,
    Job.parent_checkpoint_id,
    Job.parent_step,
    Job.fork_mode,
    Job.fork_reference,
)
