"""Reading metrics: chosen names over a range of steps, evenly thinned to what a chart can show.

Thinning is the database's: it walks an even grid over the steps, and the primary key finds the next row at each of its
points. So a read costs what it answers, however many steps there are, and binds a handful of values.
"""

from collections.abc import Collection, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.database import Store
from service.store.models import Metric
from service.store.records import MetricRow

VALIDATION = "validation/"
HELD_OUT = "held_out/"
PREFIXES = {"train": "", "validation": VALIDATION, "held_out": HELD_OUT}

Conditions = Sequence[sa.ColumnElement[bool]]


def metrics(
    store: Store,
    project_id: str,
    job_id: str,
    *,
    keys: Collection[str] | None = None,
    from_step: int | None = None,
    to_step: int | None = None,
    max_points: int | None = None,
) -> tuple[MetricRow, ...]:
    """The job's metrics by step, both ends included; names of the validation split begin with
    `validation/`, those of probes on held-out prompts with `held_out/`.

    With `max_points`, each split keeps at most that many steps, evenly spaced, the first and the last among them (of
    one, the last).
    """
    found: dict[int, dict[str, float | None]] = {}
    with store.read() as session:
        for split, prefix in PREFIXES.items():
            wanted = None if keys is None else _names_in_split(keys, prefix)
            if wanted is not None and not wanted:
                continue
            rows = _rows(session, project_id, job_id, split, from_step, to_step, max_points)
            for step, figures in rows:
                chosen = {prefix + name: value for name, value in figures.items() if wanted is None or name in wanted}
                if chosen:
                    found.setdefault(step, {}).update(chosen)
    return tuple(MetricRow(step=step, metrics=found[step]) for step in sorted(found))


def _names_in_split(keys: Collection[str], prefix: str) -> set[str]:
    if prefix:
        return {key.removeprefix(prefix) for key in keys if key.startswith(prefix)}
    return {key for key in keys if not key.startswith((VALIDATION, HELD_OUT))}


def _rows(
    session: Session,
    project_id: str,
    job_id: str,
    split: str,
    from_step: int | None,
    to_step: int | None,
    max_points: int | None,
) -> list[tuple[int, dict[str, float | None]]]:
    where = [Metric.job_id == job_id, Metric.split == split]
    if from_step is not None:
        where.append(Metric.step >= from_step)
    if to_step is not None:
        where.append(Metric.step <= to_step)
    if max_points is not None and _has_more_than(session, max_points, where):
        where.append(Metric.step.in_(_evenly(session, max_points, where)))
    query = sa.select(Metric.step, Metric.figures).where(Metric.project_id == project_id, *where).order_by(Metric.step)
    return [(step, figures) for step, figures in session.execute(query)]


def _has_more_than(session: Session, count: int, where: Conditions) -> bool:
    found = sa.select(Metric.step).where(*where).order_by(Metric.step).offset(count).limit(1)
    return session.scalars(found).first() is not None


def _evenly(session: Session, max_points: int, where: Conditions) -> sa.Select[int]:
    """The first step at or after each of `max_points` points from the first step to the last."""
    first, last = session.execute(sa.select(sa.func.min(Metric.step), sa.func.max(Metric.step)).where(*where)).one()
    if max_points == 1:
        return sa.select(sa.literal(last))
    number = sa.select(sa.literal(0).label("number")).cte("points", recursive=True)
    number = number.union_all(sa.select(number.c.number + 1).where(number.c.number < max_points - 1))
    point = first + number.c.number * sa.literal(last - first, sa.BigInteger) // (max_points - 1)
    return sa.select(
        sa.select(sa.func.min(Metric.step)).where(*where, Metric.step >= point).scalar_subquery()
    ).select_from(number)
