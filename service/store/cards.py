"""What the workers compute on, and how fast jobs that ended were there: what estimates of time and memory rest on."""

from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise

import sqlalchemy as sa

from alignment_core.costs.rates import Rate
from service.store.database import Store, now
from service.store.models import Card, JobEvent, MeasuredRate
from service.store.records.catalog import CardRecord

SEEN_WITHIN = timedelta(days=30)  # a card that no worker has named for so long is taken to be gone
WIDER_ONCE, WIDER = 2.0, 1.25  # the bounds beyond the slowest and the fastest job, after one job and after several


def announce(store: Store, card: CardRecord) -> None:
    """Say what a worker has; several may have the same."""
    with store.write() as session:
        session.merge(Card(**card.model_dump(), seen_at=now(session)))


def known(store: Store) -> tuple[CardRecord, ...]:
    """The workers' cards, those with the most memory first."""
    with store.read() as session:
        seen = sa.select(Card).where(Card.seen_at > now(session) - SEEN_WITHIN).order_by(Card.memory_bytes.desc())
        fields = CardRecord.model_fields
        return tuple(CardRecord(**{field: getattr(row, field) for field in fields}) for row in session.scalars(seen))


def learn(store: Store, card: str, family: str, rates: Mapping[str, float]) -> None:
    """Keep how fast a job was; what is expected of the next one is the mean of all, in which the last one counts a fifth at least."""
    with store.write() as session:
        for phase, rate in rates.items():
            row = session.get(MeasuredRate, (card, family, phase), with_for_update=True)
            if row is None:
                row = MeasuredRate(
                    card=card, family=family, phase=phase, low=rate, expected=rate, high=rate, num_jobs=0
                )
                session.add(row)
            row.num_jobs += 1
            row.low, row.high = min(row.low, rate), max(row.high, rate)
            row.expected += (rate - row.expected) / min(row.num_jobs, 5)


def rates_of(store: Store, card: str, family: str) -> dict[str, Rate]:
    """What jobs of the family have been measured at, by phase."""
    with store.read() as session:
        measured = sa.select(MeasuredRate).where(MeasuredRate.card == card, MeasuredRate.family == family)
        return {row.phase: _bounded(row) for row in session.scalars(measured)}


def phase_seconds(store: Store, job_id: str, attempt: int) -> dict[str, float]:
    """How long an attempt that ended was in each phase, all its turns together."""
    with store.read() as session:
        marks = sa.select(JobEvent.data, JobEvent.time, JobEvent.type).where(
            JobEvent.job_id == job_id,
            JobEvent.attempt == attempt,
            JobEvent.type.in_(("run_started", "phase_changed", "run_completed")),
        )
        rows = session.execute(marks.order_by(JobEvent.seq)).all()
    found: dict[str, float] = {}
    for before, after in pairwise(rows):
        phase = before.data.get("phase") or "loading"
        found[phase] = found.get(phase, 0.0) + (after.time - before.time).total_seconds()
    return found


def _bounded(row: MeasuredRate) -> Rate:
    wider = WIDER_ONCE if row.num_jobs == 1 else WIDER
    return Rate(row.low / wider, row.expected, row.high * wider, "jobs")
