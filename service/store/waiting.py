"""What waits for a worker, and whose turn it is. A message of the broker only says that something does.

Jobs go by their turn and then in the order of `queued_at`, all projects in one line, or in one for each class of jobs; a job that comes back from a lost worker keeps its place.
Data sets go by owner: first that of the project that has the fewest in work, so that nobody can keep all checkers busy.
"""

import math
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.resource_classes import ResourceClass, class_of
from service.store.database import CLASSES, Store
from service.store.models import Dataset, Export, Job, Push
from service.store.records.jobs import QueuePlace
from service.store.states import HELD

_QUEUED = Job.state == "queued"
_LINE = (Job.turn, Job.queued_at, Job.id)
_UNCHECKED = sa.and_(Dataset.state == "checking", Dataset.lease_expires_at.is_(None))
_IN_WORK = sa.and_(Dataset.state == "checking", Dataset.lease_expires_at.is_not(None))


def next_jobs(store: Store, limit: int = 1, classes: Sequence[ResourceClass] = ()) -> tuple[str, ...]:
    """Ids of the queued jobs whose turn it is, the first one first; of these classes, or of all when none is named."""
    among = _among(classes, store.classes)
    query = sa.select(Job.id).where(_QUEUED, among).order_by(*_LINE).limit(limit)
    with store.read() as session:
        return tuple(session.scalars(query))


def num_jobs(store: Store, at_most: int, classes: Sequence[ResourceClass] = ()) -> int:
    """How many jobs are queued, of these classes or of all; counting ends at `at_most`."""
    return _count(store, sa.select(Job.id).where(_QUEUED, _among(classes, store.classes)), at_most)


def class_of_job(store: Store, job_id: str) -> ResourceClass | None:
    """None for a job that is in no class, or no more there."""
    if not store.classes:
        return None
    with store.read() as session:
        row = session.execute(sa.select(Job.processes, Job.card_gib).where(Job.id == job_id)).one_or_none()
    return None if row is None else class_of(row.processes, row.card_gib, store.classes)


def _among(chosen: Sequence[ResourceClass], classes: Sequence[ResourceClass]) -> sa.ColumnElement[bool]:
    """Whether a job is of one of the chosen classes; true of all when none is chosen."""
    return _name_of_class(classes).in_([one.name for one in chosen]) if chosen else sa.true()


def _name_of_class(classes: Sequence[ResourceClass]) -> sa.ColumnElement[str]:
    """What `class_of` says of a row: null for one that is in none."""
    by_memory = sorted(classes, key=lambda one: -one.gib)
    known = [
        (sa.and_(Job.processes <= one.most, sa.true() if math.isinf(one.gib) else Job.card_gib <= one.gib), one.name)
        for one in classes
    ]
    unknown = [(Job.processes <= one.most, one.name) for one in by_memory]
    return sa.case((Job.card_gib.is_(None), sa.case(*unknown)), else_=sa.case(*known))


def next_datasets(store: Store, limit: int = 1, most_per_project: int | None = None) -> tuple[str, ...]:
    """Ids of the data sets to check next, none of a project that has `most_per_project` in work already.

    A lost checker's is none of them before the sweep has counted the loss.
    """
    in_work = sa.select(Dataset.project_id, sa.func.count().label("num")).where(_IN_WORK).group_by(Dataset.project_id)
    busy = in_work.subquery()
    query = (
        sa.select(Dataset.id)
        .outerjoin(busy, busy.c.project_id == Dataset.project_id)
        .where(_UNCHECKED)
        .order_by(sa.func.coalesce(busy.c.num, 0), Dataset.id)
        .limit(limit)
    )
    if most_per_project is not None:
        query = query.where(sa.func.coalesce(busy.c.num, 0) < most_per_project)
    with store.read() as session:
        return tuple(session.scalars(query))


def num_datasets(store: Store, at_most: int) -> int:
    """How many data sets no worker has taken yet; counting ends at `at_most`."""
    return _count(store, sa.select(Dataset.id).where(_UNCHECKED), at_most)


def next_exports(store: Store, limit: int = 1) -> tuple[str, ...]:
    """Ids of the exports to make next, in the order in which they were asked for."""
    query = sa.select(Export.id).where(Export.state == "queued").order_by(Export.id).limit(limit)
    with store.read() as session:
        return tuple(session.scalars(query))


def num_beside_jobs(store: Store, at_most: int) -> int:
    """How many data sets, exports and pushes no worker has taken yet; counting ends at `at_most`. One kind of message rings for all."""
    asked = _count(store, sa.select(Export.id).where(Export.state == "queued"), at_most)
    asked += _count(store, sa.select(Push.id).where(Push.state == "queued"), at_most)
    return min(at_most, asked + num_datasets(store, at_most))


def places(session: Session, queued: Sequence[Job]) -> dict[str, QueuePlace]:
    """The places of queued jobs in the lines of their classes."""
    classes = session.info[CLASSES]
    found: dict[str, QueuePlace] = {}
    of_job = {job.id: class_of(job.processes, job.card_gib, classes) for job in queued}
    for line in set(of_job.values()):
        found |= _places_in(session, [job for job in queued if of_job[job.id] == line], line, classes)
    return found


def _places_in(
    session: Session, queued: Sequence[Job], line: ResourceClass | None, classes: Sequence[ResourceClass]
) -> dict[str, QueuePlace]:
    """From one walk along the index of the queue that ends with the last of them."""
    in_line = (
        _among([line], classes) if line is not None else _name_of_class(classes).is_(None) if classes else sa.true()
    )
    held = session.scalars(sa.select(sa.func.count()).where(Job.state.in_(HELD), in_line)).one()
    last = max(job.queued_at for job in queued if job.queued_at is not None)
    turn = max(job.turn for job in queued)
    before = sa.or_(Job.turn < turn, Job.queued_at <= last)
    number = sa.func.row_number().over(order_by=_LINE).label("number")
    walk = sa.select(Job.id, number).where(_QUEUED, in_line, before).subquery()
    rows = session.execute(sa.select(walk.c.id, walk.c.number).where(walk.c.id.in_([job.id for job in queued])))
    return {job_id: QueuePlace(position=place, ahead=held + place - 1) for job_id, place in rows}


def _count(store: Store, query: sa.Select[Any], at_most: int) -> int:
    with store.read() as session:
        return session.scalars(sa.select(sa.func.count()).select_from(query.limit(at_most).subquery())).one()
