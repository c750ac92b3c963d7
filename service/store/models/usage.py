"""What attempts at jobs took, once they have ended."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from service.store.models.base import Base, Id, project_id


class AttemptUsage(Base):
    """One attempt; it outlives its job, without its name, so that a project's sums do not fall when a job is deleted."""

    __tablename__ = "attempt_usage"
    __table_args__ = (
        sa.Index("ix_attempt_usage_project_id_ended_at", "project_id", "ended_at"),
        sa.Index("ix_attempt_usage_shape_ended_at", "shape", "ended_at"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = project_id()
    job_id: Mapped[str | None] = mapped_column(Id, sa.ForeignKey("jobs.id", ondelete="SET NULL"), index=True)
    attempt: Mapped[int]
    processes: Mapped[int]
    device: Mapped[str | None] = mapped_column(sa.String(8))
    seconds: Mapped[dict[str, Any]]
    peak_device_gib: Mapped[float | None] = mapped_column(sa.Float)
    peak_host_gib: Mapped[float | None] = mapped_column(sa.Float)
    claimed_at: Mapped[datetime]
    ended_at: Mapped[datetime]
    shape: Mapped[str | None] = mapped_column(
        sa.String(300)
    )  # of the estimate; with the ratio, where both can be compared
    over_estimate: Mapped[float | None] = mapped_column(sa.Float)
