"""Reading metrics: chosen names over a range of steps, evenly thinned to what a chart can show."""

from collections.abc import Collection, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.database import Store
from service.store.models import Metric
from service.store.records import MetricRow

VALIDATION = "validation/"
HELD_OUT = "held_out/"


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

    With `max_points`, each split keeps at most that many steps, evenly spaced, the first and the last among them.
    """
    found: dict[int, dict[str, float | None]] = {}
    with store.read() as session:
        for split, prefix in (("train", ""), ("validation", VALIDATION), ("held_out", HELD_OUT)):
            wanted = None if keys is None else _names_in_split(keys, prefix)
            if wanted is not None and not wanted:
                continue
            rows = _rows(session, project_id, job_id, split, from_step, to_step, max_points)
            for step, figures in rows:
                chosen = {prefix + name: value for name, value in figures.items() if wanted is None or name in wanted}
                if chosen:
                    found.setdefault(step, {}).update(chosen)
    return tuple(MetricRow(step=step, metrics=found[step]) for step in sorted(found))


def thin(steps: Sequence[int], max_points: int) -> list[int]:
    """At most `max_points` of `steps`, evenly spaced by position, the first and the last among them."""
    if len(steps) <= max_points:
        return list(steps)
    if max_points == 1:
        return [steps[-1]]
    return [steps[round(index * (len(steps) - 1) / (max_points - 1))] for index in range(max_points)]


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
    where = [Metric.job_id == job_id, Metric.project_id == project_id, Metric.split == split]
    if from_step is not None:
        where.append(Metric.step >= from_step)
    if to_step is not None:
        where.append(Metric.step <= to_step)
    if max_points is not None:
        steps = session.scalars(sa.select(Metric.step).where(*where).order_by(Metric.step)).all()
        kept = thin(steps, max_points)
        if len(kept) < len(steps):
            where.append(Metric.step.in_(kept))
    query = sa.select(Metric.step, Metric.figures).where(*where).order_by(Metric.step)
    return [(step, figures) for step, figures in session.execute(query)]
