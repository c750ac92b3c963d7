"""Counts over all projects, for the operator's dashboards."""

import sqlalchemy as sa

from service.store.database import Store
from service.store.models import Job
from service.store.states import STATES, JobState


def jobs_by_state(store: Store) -> dict[JobState, int]:
    """How many jobs are in each state; zeros included, so that a series does not vanish."""
    with store.read() as session:
        rows = session.execute(sa.select(Job.state, sa.func.count()).group_by(Job.state))
        found = {state: number for state, number in rows}  # noqa: C416  rows are tuples to run time alone
    return {state: found.get(state, 0) for state in STATES}
