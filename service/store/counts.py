"""Counts over all projects, for the operator's dashboards."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from service.resource_classes import class_of
from service.store.database import Store, now
from service.store.models import Job
from service.store.states import STATES, JobState


@dataclass(frozen=True)
class Waiting:
    """The queued jobs of a class, and for how long the first of them has waited."""

    num: int
    seconds: float


ALL = "all"  # the one class of a server that has none


def waiting_by_class(store: Store) -> dict[str, Waiting]:
    """By the names of classes, those without a job too; `none` are jobs that are in no class any more."""
    names = [one.name for one in store.classes] or [ALL]
    query = sa.select(Job.processes, Job.card_gib, Job.queued_at).where(Job.state == "queued")
    nums, oldest = Counter[str](), dict[str, datetime]()
    with store.read() as session:
        time = now(session)
        for processes, card_gib, queued_at in session.execute(query.order_by(Job.queued_at)):
            found = class_of(processes, card_gib, store.classes)
            name = ALL if not store.classes else "none" if found is None else found.name
            nums[name] += 1
            oldest.setdefault(name, queued_at or time)
    seconds = {name: max(0.0, (time - since).total_seconds()) for name, since in oldest.items()}
    return {name: Waiting(nums[name], seconds.get(name, 0.0)) for name in dict.fromkeys([*names, *nums])}


def jobs_by_state(store: Store) -> dict[JobState, int]:
    """How many jobs are in each state; zeros included, so that a series does not vanish."""
    with store.read() as session:
        rows = session.execute(sa.select(Job.state, sa.func.count()).group_by(Job.state))
        found = {state: number for state, number in rows}  # noqa: C416  rows are tuples to run time alone
    return {state: found.get(state, 0) for state in STATES}
