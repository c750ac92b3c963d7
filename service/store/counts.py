"""Counts over all projects, for the operator's dashboards: exact, and as quick with a million rows as with ten.

Triggers of the database write a line into `state_counts` with every change of a state, in its transaction: so nobody waits for a
shared counter, and the sum of the lines is true at any time. Lines are added up now and then, which changes no sum.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeVar

import sqlalchemy as sa

from service.resource_classes import class_of
from service.store.database import Store, now
from service.store.models import Job, StateCount
from service.store.records.webhooks import DeliveryState
from service.store.states import STATES, JobState

LINES_THAT_MAY_BE = 1000
ALL = "all"  # the one class of a server that has none

Counted = Literal["jobs", "webhook_deliveries"]
StateT = TypeVar("StateT", bound=str)


@dataclass(frozen=True)
class Waiting:
    """The queued jobs of a class, and for how long the first of them has waited."""

    num: int
    seconds: float


def jobs_by_state(store: Store) -> dict[JobState, int]:
    """How many jobs are in each state; zeros included, so that a series does not vanish."""
    return _by_state(store, "jobs", STATES)


def deliveries_by_state(store: Store) -> dict[DeliveryState, int]:
    """How many deliveries of all projects wait to be sent, were taken, and were given up, as far as they are kept."""
    states: tuple[DeliveryState, ...] = ("pending", "delivered", "failed")
    return _by_state(store, "webhook_deliveries", states)


def _by_state(store: Store, counted: Counted, states: Iterable[StateT]) -> dict[StateT, int]:
    query = sa.select(StateCount.state, sa.func.sum(StateCount.num)).where(StateCount.counted == counted)
    with store.read() as session:
        found = {state: int(number) for state, number in session.execute(query.group_by(StateCount.state))}
    return {state: found.get(state, 0) for state in states}


def add_up(store: Store, at_most: int = LINES_THAT_MAY_BE) -> int:
    """Put one line for each state in place of all that there are, if there are more than `at_most`; how many went."""
    with store.read() as session:
        lines = sa.select(StateCount.id).limit(at_most + 1).subquery()
        if (session.scalar(sa.select(sa.func.count()).select_from(lines)) or 0) <= at_most:
            return 0
    with store.write() as session:
        free = sa.select(StateCount.id).with_for_update(skip_locked=True)  # another sweep adds up the others
        gone = sa.delete(StateCount).where(StateCount.id.in_(free))
        sums: dict[tuple[str, str], int] = {}
        rows = session.execute(gone.returning(StateCount.counted, StateCount.state, StateCount.num)).all()
        for counted, state, num in rows:
            sums[counted, state] = sums.get((counted, state), 0) + num
        session.add_all(StateCount(counted=key[0], state=key[1], num=num) for key, num in sums.items() if num)
        return len(rows)


def waiting_by_class(store: Store) -> dict[str, Waiting]:
    """By the names of classes, those without a job too; `none` are jobs that are in no class any more."""
    nums = dict.fromkeys([one.name for one in store.classes] or [ALL], 0)
    oldest: dict[str, datetime] = {}
    alike = (Job.processes, Job.card_gib)
    query = sa.select(*alike, sa.func.count(), sa.func.min(Job.queued_at)).where(Job.state == "queued")
    with store.read() as session:
        time = now(session)
        for processes, card_gib, num, since in session.execute(query.group_by(*alike)):
            found = class_of(processes, card_gib, store.classes)
            name = ALL if not store.classes else "none" if found is None else found.name
            nums[name] = nums.get(name, 0) + num
            oldest[name] = min(oldest.get(name, time), since or time)
    seconds = {name: (time - since).total_seconds() for name, since in oldest.items()}
    return {name: Waiting(num, seconds.get(name, 0.0)) for name, num in nums.items()}
