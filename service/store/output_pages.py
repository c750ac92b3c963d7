"""Checkpoints and sample images of a job page by page: a page costs what it shows, however many there are."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.database import Store
from service.store.models import Checkpoint, CheckpointFile, Sample
from service.store.records.base import Slice, StoredFile
from service.store.records.checkpoints import CheckpointRecord
from service.store.records.runs import SampleRecord

Row = TypeVar("Row", Checkpoint, Sample)


def page_of_checkpoints(
    store: Store, project_id: str, job_id: str, *, after_id: str | None, limit: int, newest_first: bool = False
) -> Slice[CheckpointRecord] | None:
    """Up to `limit` checkpoints with their files, the earliest step first; None where the job has no `after_id`.

    With `newest_first` the other way round, and `after_id` is then the one before which the page begins.
    """
    with store.read() as session:
        rows = _page(session, Checkpoint, project_id, job_id, after_id, limit, newest_first)
        if rows is None:
            return None
        return Slice(_with_files(session, rows[:limit]), has_more=len(rows) > limit)


def page_of_samples(
    store: Store, project_id: str, job_id: str, *, after_id: str | None, limit: int, newest_first: bool = False
) -> Slice[SampleRecord] | None:
    """The same of its sample images, each with the checkpoint of its step."""
    with store.read() as session:
        rows = _page(session, Sample, project_id, job_id, after_id, limit, newest_first)
        if rows is None:
            return None
        saved = _checkpoints_at(session, project_id, job_id, [row.step for row in rows[:limit]])
        shown = (
            SampleRecord.model_validate(row).model_copy(update={"checkpoint_id": saved.get(row.step)})
            for row in rows[:limit]
        )
        return Slice(tuple(shown), has_more=len(rows) > limit)


def get_sample(store: Store, project_id: str, job_id: str, sample_id: str) -> SampleRecord | None:
    """None where the job has no such image."""
    query = sa.select(Sample).where(Sample.id == sample_id, Sample.job_id == job_id, Sample.project_id == project_id)
    with store.read() as session:
        row = session.scalars(query).one_or_none()
        return None if row is None else SampleRecord.model_validate(row)


def _page(
    session: Session,
    table: type[Row],
    project_id: str,
    job_id: str,
    after_id: str | None,
    limit: int,
    newest_first: bool,
) -> Sequence[Row] | None:
    """One row more than the page has, where there is one; None for an `after_id` that the job has not."""
    query = sa.select(table).where(table.job_id == job_id, table.project_id == project_id)
    if after_id is not None:
        after = sa.select(table.step).where(
            table.id == after_id, table.job_id == job_id, table.project_id == project_id
        )
        step = session.scalars(after).one_or_none()
        if step is None:
            return None
        query = query.where(table.step < step if newest_first else table.step > step)
    order = table.step.desc() if newest_first else table.step
    return session.scalars(query.order_by(order).limit(limit + 1)).all()


def _checkpoints_at(session: Session, project_id: str, job_id: str, steps: Sequence[int]) -> dict[int, str]:
    """Ids of the job's checkpoints by their steps, of those steps that have one."""
    query = sa.select(Checkpoint.step, Checkpoint.id).where(
        Checkpoint.job_id == job_id, Checkpoint.project_id == project_id, Checkpoint.step.in_(steps)
    )
    return {row.step: row.id for row in session.execute(query)}


def _with_files(session: Session, rows: Sequence[Checkpoint]) -> tuple[CheckpointRecord, ...]:
    files: defaultdict[str, list[StoredFile]] = defaultdict(list)
    wanted = CheckpointFile.checkpoint_id.in_([row.id for row in rows])
    for file in session.scalars(sa.select(CheckpointFile).where(wanted).order_by(CheckpointFile.path)):
        files[file.checkpoint_id].append(StoredFile.model_validate(file))
    fields = CheckpointRecord.model_fields.keys() - {"files"}
    return tuple(
        CheckpointRecord(**{field: getattr(row, field) for field in fields}, files=tuple(files[row.id])) for row in rows
    )
