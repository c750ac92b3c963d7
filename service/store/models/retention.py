"""How long checkpoints stay. See `retention_rules.py`."""

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from service.store.models.base import Base, Id, job_id_key


class ProjectRetention(Base):
    """The policy of every job of a project that has none of its own."""

    __tablename__ = "project_retention"

    project_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("projects.id"), primary_key=True)
    keep_last: Mapped[int | None]
    keep_best: Mapped[bool]
    ttl_days: Mapped[float | None] = mapped_column(sa.Float)
    unfinished_days: Mapped[float | None] = mapped_column(sa.Float)


class JobRetention(Base):
    """A job's own policy."""

    __tablename__ = "job_retention"

    job_id: Mapped[str] = job_id_key()
    keep_last: Mapped[int | None]
    keep_best: Mapped[bool]
    ttl_days: Mapped[float | None] = mapped_column(sa.Float)
    unfinished_days: Mapped[float | None] = mapped_column(sa.Float)


class JobPins(Base):
    """What is pinned as it is saved: asked for with the job, and done once for each checkpoint."""

    __tablename__ = "job_pins"

    job_id: Mapped[str] = job_id_key()
    steps: Mapped[list[int]] = mapped_column(sa.JSON(none_as_null=True))
    result: Mapped[bool]
