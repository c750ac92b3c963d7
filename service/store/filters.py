"""Filters of the list of jobs as a query that an index answers, newest first, whatever is asked for.

Each condition is a prefix of an index that ends in the job's id, so that a page is read off its end: no sort, and nothing
is read that a filter leaves out. Several states are several such ends, merged.
"""

from collections.abc import Collection, Mapping

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from service.store.kinds import Kind, ids_of
from service.store.models import Job, JobLabel
from service.store.states import JobState


def filtered(
    project_id: str,
    after_id: str | None,
    limit: int,
    *,
    kind: Kind,
    states: Collection[JobState] | None,
    method: str | None,
    model: str | None,
    labels: Mapping[str, str],
) -> sa.Select[Job]:
    """Up to `limit` jobs for which every filter holds that is given, the newest first and older than `after_id`."""
    wanted = _ids(project_id, kind, after_id, method, model, labels)
    match sorted(set(states)) if states is not None else None:
        case None:
            ids = wanted.limit(limit)
        case [state]:
            ids = wanted.where(Job.state == state).limit(limit)
        case []:
            ids = wanted.where(sa.false())
        case several:
            ends = [wanted.where(Job.state == state).limit(limit).subquery() for state in several]
            ids = sa.union_all(*(sa.select(end.c.id) for end in ends)).order_by(sa.desc("id")).limit(limit)
    found = ids.subquery()
    return sa.select(Job).join(found, Job.id == found.c.id).order_by(Job.id.desc())


def _ids(
    project_id: str,
    kind: Kind,
    after_id: str | None,
    method: str | None,
    model: str | None,
    labels: Mapping[str, str],
) -> sa.Select[str]:
    query = sa.select(Job.id).where(Job.project_id == project_id)
    newest = Job.id
    for key, value in labels.items():
        label = aliased(JobLabel)
        query = query.join(label, label.job_id == newest)
        query = query.where(label.project_id == project_id, label.key == key, label.value == value)
        newest = label.job_id
    first, last = ids_of(kind)
    query = query.where(newest >= first)
    if after_id is None or not after_id.startswith(f"{kind}_"):
        query = query.where(newest <= last)
    if after_id is not None:  # alone where it can be: of two upper ends SQLite seeks the first and reads from there
        query = query.where(newest < after_id)
    if method is not None:
        query = query.where(Job.method == method)
    if model is not None:
        query = query.where(Job.model == model)
    return query.order_by(newest.desc())
