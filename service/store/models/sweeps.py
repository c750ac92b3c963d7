"""One job for each of several settings. See `sweeps.py`."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from service.store.models.base import LONGEST_NAME, Base, Id, project_id
from service.store.traces import LONGEST_TRACEPARENT, current_traceparent


class Sweep(Base):
    """`is_open` until all of its jobs were queued, or it was cancelled."""

    __tablename__ = "sweeps"
    __table_args__ = (sa.Index("ix_sweeps_project_id_id", "project_id", "id"), sa.Index(None, "is_open"))

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = project_id()
    name: Mapped[str | None] = mapped_column(sa.String(LONGEST_NAME))
    labels: Mapped[dict[str, Any]] = mapped_column("metadata")
    search: Mapped[dict[str, Any]]
    at_once: Mapped[int]
    num_trials: Mapped[int]
    is_open: Mapped[bool]
    is_cancelled: Mapped[bool]
    created_at: Mapped[datetime]


class SweepTrial(Base):
    """A setting and the job that it is; `job_id` is chosen before the job is queued, so that it is queued once."""

    __tablename__ = "sweep_trials"
    __table_args__ = (sa.Index(None, "job_id"),)

    sweep_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[str] = project_id()
    point: Mapped[dict[str, Any]]
    job: Mapped[dict[str, Any]]
    job_id: Mapped[str | None] = mapped_column(Id)
    is_created: Mapped[bool]
    traceparent: Mapped[str | None] = mapped_column(sa.String(LONGEST_TRACEPARENT), default=current_traceparent)
    error: Mapped[str | None] = mapped_column(sa.Text)
