"""The lowest and the highest of every figure: a curve that is thinned by them still has its single spike.

A block is 64 steps. When the last of them is recorded, the extremes of the block are written beside the rows, so that a curve of a
million steps is read from 16,000 rows and not from all of them. Where a block is missing (of a job from before there were any, or of
the newest steps), the rows themselves are read: the answer is the same.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

import sqlalchemy as sa
from pydantic_core import from_json
from sqlalchemy.orm import Session

from service.store.models import Job, Metric, MetricBlock

BLOCK_STEPS = 64
ROWS_AT_ONCE = 2000

Figures = Mapping[str, float | None]
Extremes = dict[str, tuple[int, float, int, float]]  # of each figure: step and value of the lowest, then of the highest


class Place(NamedTuple):
    """Whose figures are read, and the steps, both ends included, which must be there."""

    project_id: str
    job_id: str
    split: str
    first: int
    last: int


def keep_block(session: Session, job: Job, split: str, step: int) -> None:
    """After the figures of a step: write the block that it ends. A later attempt that comes back to a block takes it away until then."""
    block, place = divmod(step, BLOCK_STEPS)
    if place == BLOCK_STEPS - 1:
        write_block(session, job.project_id, job.id, split, block)
    elif job.attempt > 1:
        session.execute(
            sa.delete(MetricBlock).where(
                MetricBlock.job_id == job.id, MetricBlock.split == split, MetricBlock.block == block
            )
        )


def write_block(session: Session, project_id: str, job_id: str, split: str, block: int) -> None:
    """The extremes of the rows that are there."""
    first = block * BLOCK_STEPS
    found: Extremes = {}
    for step, figures in _rows(session, Place(project_id, job_id, split, first, first + BLOCK_STEPS - 1)):
        _take_in(found, _alone(step, figures))
    session.merge(MetricBlock(job_id=job_id, split=split, block=block, project_id=project_id, extremes=found))


def thinned(
    session: Session, place: Place, max_points: int, names: Collection[str] | None = None
) -> dict[int, dict[str, float | None]]:
    """By step: of every figure the first and the last, and of each of equally long stretches the lowest and the highest, the earliest of equals.

    At most `max_points` steps for each figure (of one, the last), each with what was recorded there. `names` leaves all others out.
    """
    kept: dict[int, dict[str, float | None]] = {}
    for step in (place.first, place.last) if max_points > 1 else (place.last,):
        for _, figures in _rows(session, place._replace(first=step, last=step)):
            kept[step] = {name: value for name, value in figures.items() if names is None or name in names}
    if (num_stretches := (max_points - 2) // 2) > 0:
        for found in _stretches(session, place, num_stretches):
            for name, (low_step, low, high_step, high) in found.items():
                if names is None or name in names:
                    kept.setdefault(low_step, {})[name] = low
                    kept.setdefault(high_step, {})[name] = high
    return {step: kept[step] for step in sorted(kept) if kept[step]}


def _stretches(session: Session, place: Place, count: int) -> Iterator[Extremes]:
    """The extremes of at most `count` stretches. Long ones are whole blocks, so that no block lies in two."""
    begin, length = place.first, _divided(place.last + 1 - place.first, count)
    pieces: Iterable[tuple[int, Extremes]]
    if length < BLOCK_STEPS:
        pieces = _single_steps(session, place)
    else:
        begin = place.first // BLOCK_STEPS * BLOCK_STEPS
        blocks = _divided(place.last + 1 - begin, BLOCK_STEPS)
        length = _divided(blocks, count) * BLOCK_STEPS
        pieces = _blocks_and_steps(session, place)
    at, found = 0, Extremes()
    for step, extremes in pieces:
        if (number := (step - begin) // length) != at:
            yield found
            at, found = number, Extremes()
        _take_in(found, extremes)
    yield found


def _blocks_and_steps(session: Session, place: Place) -> Iterator[tuple[int, Extremes]]:
    """Blocks that lie within the range, and between them the steps that have none."""
    query = sa.select(MetricBlock.block, sa.cast(MetricBlock.extremes, sa.Text)).where(
        MetricBlock.project_id == place.project_id,
        MetricBlock.job_id == place.job_id,
        MetricBlock.split == place.split,
        MetricBlock.block >= _divided(place.first, BLOCK_STEPS),
        MetricBlock.block < (place.last + 1) // BLOCK_STEPS,
    )
    following = place.first
    for block, text in session.execute(query.order_by(MetricBlock.block).execution_options(yield_per=ROWS_AT_ONCE)):
        begin = block * BLOCK_STEPS
        if following < begin:
            yield from _single_steps(session, place._replace(first=following, last=begin - 1))
        yield begin, from_json(text)
        following = begin + BLOCK_STEPS
    if following <= place.last:
        yield from _single_steps(session, place._replace(first=following))


def _single_steps(session: Session, place: Place) -> Iterator[tuple[int, Extremes]]:
    return ((step, _alone(step, figures)) for step, figures in _rows(session, place))


def _rows(session: Session, place: Place) -> Iterator[tuple[int, Figures]]:
    query = sa.select(Metric.step, sa.cast(Metric.figures, sa.Text)).where(
        Metric.project_id == place.project_id,
        Metric.job_id == place.job_id,
        Metric.split == place.split,
        Metric.step.between(place.first, place.last),
    )
    found = session.execute(query.order_by(Metric.step).execution_options(yield_per=ROWS_AT_ONCE))
    return ((step, from_json(text)) for step, text in found)


def _alone(step: int, figures: Figures) -> Extremes:
    return {name: (step, value, step, value) for name, value in figures.items() if value is not None}


def _take_in(found: Extremes, later: Extremes) -> None:
    """Into what was found what came after it."""
    for name, (low_step, low, high_step, high) in later.items():
        if name in found:
            seen_low_step, seen_low, seen_high_step, seen_high = found[name]
            if low >= seen_low:
                low_step, low = seen_low_step, seen_low
            if high <= seen_high:
                high_step, high = seen_high_step, seen_high
        found[name] = (low_step, low, high_step, high)


def _divided(number: int, by: int) -> int:
    """Rounded up."""
    return -(-number // by)
