"""Reading metrics: chosen names over a range of steps, thinned to what a chart can show.

Thinning by extremes is `metric_extremes`'. Even thinning is the database's: it walks an even grid over the steps, and the primary key finds the next row at each of its
points. So a read costs what it answers, however many steps there are, and binds a handful of values.
"""

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Literal

import sqlalchemy as sa
from pydantic_core import from_json
from sqlalchemy.orm import Session

from service.store.database import Store
from service.store.metric_extremes import Place, thinned
from service.store.models import Metric
from service.store.records.runs import MetricRow

VALIDATION = "validation/"
HELD_OUT = "held_out/"
PREFIXES = {"train": "", "validation": VALIDATION, "held_out": HELD_OUT}

AT_ONCE = 5000  # steps that are read in one transaction where all of them are not kept

Conditions = Sequence[sa.ColumnElement[bool]]
Thinning = Literal["even", "extremes"]
Figures = Mapping[str, float | None]


def metrics(
    store: Store,
    project_id: str,
    job_id: str,
    *,
    keys: Collection[str] | None = None,
    from_step: int | None = None,
    to_step: int | None = None,
    max_points: int | None = None,
    keep: Thinning = "even",
) -> tuple[MetricRow, ...]:
    """The job's metrics by step, both ends included; names of the validation split begin with
    `validation/`, those of probes on held-out prompts with `held_out/`.

    With `max_points`, each split keeps at most that many steps, evenly spaced, the first and the last among them (of
    one, the last); or with `extremes` each figure at most so many points, as `metric_extremes.thinned` chooses them.
    """
    found: dict[int, dict[str, float | None]] = {}
    with store.read() as session:
        for split, prefix in PREFIXES.items():
            wanted = None if keys is None else _names_in_split(keys, prefix)
            if wanted is not None and not wanted:
                continue
            if keep == "extremes" and max_points is not None:
                rows = _extremes(session, project_id, job_id, split, from_step, to_step, max_points, wanted)
            else:
                rows = _rows(session, project_id, job_id, split, from_step, to_step, max_points)
            for step, figures in rows:
                chosen = {prefix + name: value for name, value in figures.items() if wanted is None or name in wanted}
                if chosen:
                    found.setdefault(step, {}).update(chosen)
    return tuple(MetricRow(step=step, metrics=found[step]) for step in sorted(found))


def walk(
    store: Store,
    project_id: str,
    job_id: str,
    *,
    from_step: int | None = None,
    to_step: int | None = None,
    max_points: int,
) -> Iterator[tuple[int, Figures]]:
    """Every metric of the same steps as `metrics` gives, one step after the other: a table of any length takes little memory, and no
    transaction is open while its reader waits."""
    splits = [
        _walk_split(store, project_id, _where(job_id, split, from_step, to_step), prefix, max_points)
        for split, prefix in PREFIXES.items()
    ]
    step: int | None = None
    figures: Figures = {}
    for number, found in heapq.merge(*splits, key=itemgetter(0)):
        if step is not None and number != step:
            yield step, figures
        step, figures = number, {**figures, **found} if number == step else found
    if step is not None:
        yield step, figures


def _walk_split(
    store: Store, project_id: str, where: Conditions, prefix: str, max_points: int
) -> Iterator[tuple[int, Figures]]:
    query = sa.select(Metric.step, sa.cast(Metric.figures, sa.Text)).where(Metric.project_id == project_id, *where)
    query = query.order_by(Metric.step)
    with store.read() as session:
        first, last = session.execute(sa.select(sa.func.min(Metric.step), sa.func.max(Metric.step)).where(*where)).one()
        is_thinned = _has_more_than(session, max_points, where)
    if first is None:
        return
    seen, begin = first - 1, 0
    while seen < last and begin < max_points:
        end = min(begin + AT_ONCE, max_points)
        some = query.where(Metric.step > seen, Metric.step <= last)
        if is_thinned:
            some = some.where(Metric.step.in_(_evenly(where, first, last, max_points, begin, end)))
        with store.read() as session:
            rows = session.execute(some.limit(AT_ONCE)).all()
        begin = end
        for step, text in rows:
            figures = from_json(text)
            yield step, {prefix + name: value for name, value in figures.items()} if prefix else figures
            seen = step


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
    where = _where(job_id, split, from_step, to_step)
    if max_points is not None and _has_more_than(session, max_points, where):
        first, last = session.execute(sa.select(sa.func.min(Metric.step), sa.func.max(Metric.step)).where(*where)).one()
        where = [*where, Metric.step.in_(_evenly(where, first, last, max_points, 0, max_points))]
    query = sa.select(Metric.step, Metric.figures).where(Metric.project_id == project_id, *where).order_by(Metric.step)
    return [(step, figures) for step, figures in session.execute(query)]


def _extremes(
    session: Session,
    project_id: str,
    job_id: str,
    split: str,
    from_step: int | None,
    to_step: int | None,
    max_points: int,
    names: Collection[str] | None,
) -> Iterable[tuple[int, dict[str, float | None]]]:
    where = _where(job_id, split, from_step, to_step)
    if not _has_more_than(session, max_points, where):
        return _rows(session, project_id, job_id, split, from_step, to_step, None)
    first, last = session.execute(sa.select(sa.func.min(Metric.step), sa.func.max(Metric.step)).where(*where)).one()
    return thinned(session, Place(project_id, job_id, split, first, last), max_points, names).items()


def _where(job_id: str, split: str, from_step: int | None, to_step: int | None) -> Conditions:
    where = [Metric.job_id == job_id, Metric.split == split]
    if from_step is not None:
        where.append(Metric.step >= from_step)
    if to_step is not None:
        where.append(Metric.step <= to_step)
    return where


def _has_more_than(session: Session, count: int, where: Conditions) -> bool:
    found = sa.select(Metric.step).where(*where).order_by(Metric.step).offset(count).limit(1)
    return session.scalars(found).first() is not None


def _evenly(where: Conditions, first: int, last: int, max_points: int, begin: int, end: int) -> sa.Select[int]:
    """The first step at or after each of `max_points` points from the first step to the last; of these the `begin`th to before the `end`th."""
    if max_points == 1:
        return sa.select(sa.literal(last))
    number = sa.select(sa.literal(begin).label("number")).cte("points", recursive=True)
    number = number.union_all(sa.select(number.c.number + 1).where(number.c.number < end - 1))
    point = first + number.c.number * sa.literal(last - first, sa.BigInteger) // (max_points - 1)
    return sa.select(
        sa.select(sa.func.min(Metric.step)).where(*where, Metric.step >= point).scalar_subquery()
    ).select_from(number)
