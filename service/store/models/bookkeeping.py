"""What the service remembers for itself."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from service.store.models.base import Base, Id


class HostClock(Base):
    """At which time a host's monotonic clock read zero, for each start of the host; SQLite's leases are counted by it."""

    __tablename__ = "host_clocks"

    boot_id: Mapped[str] = mapped_column(Id, primary_key=True)
    zero_at: Mapped[datetime]


class Model(Base):
    """What the files of a model say, and to which `reader`; `id` is the hash of where it is. See `known_models.py`."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    source: Mapped[dict[str, Any]]
    report: Mapped[dict[str, Any] | None]
    reader: Mapped[str | None] = mapped_column(sa.String(200))
    error: Mapped[str | None] = mapped_column(sa.Text)
    asked_at: Mapped[datetime] = mapped_column(index=True)
    tried_at: Mapped[datetime | None]


class Card(Base):
    """What a worker computes on. See `cards.py`."""

    __tablename__ = "cards"

    name: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    device: Mapped[str] = mapped_column(sa.String(8))
    memory_bytes: Mapped[int] = mapped_column(sa.BigInteger)
    seen_at: Mapped[datetime]


class MeasuredRate(Base):
    """How fast the jobs of a family were on a card, in a phase's own unit a second."""

    __tablename__ = "rates"

    card: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    family: Mapped[str] = mapped_column(sa.String(16), primary_key=True)
    phase: Mapped[str] = mapped_column(sa.String(16), primary_key=True)
    low: Mapped[float] = mapped_column(sa.Float)
    expected: Mapped[float] = mapped_column(sa.Float)
    high: Mapped[float] = mapped_column(sa.Float)
    num_jobs: Mapped[int]


class IdempotencyKey(Base):
    __tablename__ = "idempotency_keys"

    project_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("projects.id"), primary_key=True)
    key: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    request_sha256: Mapped[str] = mapped_column(sa.String(64))
    resource_id: Mapped[str] = mapped_column(Id)
    status: Mapped[int | None]
    body: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]


class StateCount(Base):
    """So many more rows of the table `counted` are in a state, or fewer: written by triggers, see `counts.py`."""

    __tablename__ = "state_counts"

    id: Mapped[int] = mapped_column(sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True)
    counted: Mapped[str] = mapped_column(sa.String(32))
    state: Mapped[str] = mapped_column(sa.String(16))
    num: Mapped[int] = mapped_column(sa.BigInteger)


class Removal(Base):
    """Objects of something that was deleted: everything under `prefix` is to go, see `removals.py`."""

    __tablename__ = "removals"

    prefix: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    created_at: Mapped[datetime]
    due_at: Mapped[datetime] = mapped_column(index=True)
