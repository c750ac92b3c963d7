"""Trials that a sweep is yet to queue: what they name must not be deleted before, as little as what a queued job names."""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.models import Sweep, SweepTrial


def sweeps_naming(session: Session, project_id: str, resource_id: str, limit: int) -> list[str]:
    """Ids of the project's sweeps with a trial to come that names a data set, weights, a prompt set or a checkpoint; so many at most.

    An id is too long to occur by chance in what else a trial holds.
    """
    named = sa.cast(SweepTrial.job, sa.Text).contains(resource_id, autoescape=True)
    query = (
        sa.select(Sweep.id)
        .join(SweepTrial, SweepTrial.sweep_id == Sweep.id)
        .where(Sweep.project_id == project_id, Sweep.is_open, ~SweepTrial.is_created, SweepTrial.error.is_(None), named)
        .distinct()
    )
    return list(session.scalars(query.order_by(Sweep.id).limit(limit)))
