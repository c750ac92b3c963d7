"""Sums over a project's attempts, made by the database: there may be a million of them.

To the millisecond as if the attempts were added up one after the other: SQLite adds whole milliseconds and microseconds, PostgreSQL
decimals, so no order of the rows and no number of them moves a digit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.models import AttemptUsage

Condition = sa.ColumnElement[bool]


@dataclass(frozen=True)
class Sums:
    """Of some attempts; `seconds` by phase, in about the order in which a job meets them."""

    num_attempts: int
    seconds: dict[str, float]
    process_seconds: float
    gpu_seconds: float
    peak_device_gib: float | None
    peak_host_gib: float | None


def sums_of(session: Session, which: Sequence[Condition]) -> Sums:
    is_postgres = session.get_bind().dialect.name == "postgresql"
    held = (_held_on_postgres() if is_postgres else _held_on_sqlite()) * AttemptUsage.processes
    totals = sa.select(
        sa.func.count(),
        sa.func.sum(held),
        sa.func.sum(held).filter(AttemptUsage.device == "cuda"),
        sa.func.max(AttemptUsage.peak_device_gib),
        sa.func.max(AttemptUsage.peak_host_gib),
    )
    num, processes, gpus, device_gib, host_gib = session.execute(totals.where(*which)).one()
    phases = _phases_on_postgres() if is_postgres else _phases_on_sqlite()
    return Sums(
        num_attempts=num,
        seconds={phase: round(float(total) / 1000, 3) for phase, total in session.execute(phases.where(*which))},
        process_seconds=round(float(processes or 0) / 1e6, 3),
        gpu_seconds=round(float(gpus or 0) / 1e6, 3),
        peak_device_gib=device_gib,
        peak_host_gib=host_gib,
    )


def _held_on_postgres() -> sa.ColumnElement[int]:
    """Microseconds from the claim to the end."""
    lasted = AttemptUsage.ended_at - AttemptUsage.claimed_at
    return sa.cast(sa.extract("epoch", lasted) * 1_000_000, sa.BigInteger)


def _held_on_sqlite() -> sa.ColumnElement[int]:
    return _microseconds(AttemptUsage.ended_at) - _microseconds(AttemptUsage.claimed_at)


def _microseconds(column: Any) -> sa.ColumnElement[int]:
    """SQLite has a time as text, whose last six digits are the microseconds; its own functions know milliseconds alone."""
    text = sa.type_coerce(column, sa.Text)
    seconds = sa.cast(sa.func.strftime("%s", text), sa.BigInteger)
    return seconds * 1_000_000 + sa.cast(sa.func.substr(text, -6), sa.BigInteger)


def _phases_on_postgres() -> sa.Select[str, Any]:
    """Milliseconds by phase."""
    each = sa.func.json_each_text(AttemptUsage.seconds)
    one = each.table_valued("key", "value", with_ordinality="place", joins_implicitly=True).render_derived()
    return _by_phase(one.c.key, sa.cast(one.c.value, sa.Numeric) * 1000, one.c.place)


def _phases_on_sqlite() -> sa.Select[str, Any]:
    one = sa.func.json_each(AttemptUsage.seconds).table_valued("key", "value", "id", joins_implicitly=True)
    milliseconds = sa.cast(sa.func.round(one.c.value * 1000), sa.BigInteger)
    return _by_phase(one.c.key, milliseconds, one.c.id)


def _by_phase(
    phase: sa.ColumnElement[str], milliseconds: sa.ColumnElement[Any], place: sa.ColumnElement[int]
) -> sa.Select[str, Any]:
    grouped = sa.select(phase, sa.func.sum(milliseconds)).select_from(AttemptUsage).group_by(phase)
    return grouped.order_by(sa.func.max(place), phase)
