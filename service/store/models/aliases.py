"""Names that a project gives to its checkpoints, and how each came by what it points at."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from service.store.models.base import Base, Id, project_id

LONGEST_ALIAS = 64
LONGEST_REASON = 1000


class Alias(Base):
    """What a name points at now. The checkpoint cannot be deleted while it does."""

    __tablename__ = "aliases"

    project_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("projects.id"), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(LONGEST_ALIAS), primary_key=True)
    checkpoint_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("checkpoints.id"), index=True)
    promotion_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("promotions.id"))


class Promotion(Base):
    """A name that was given to a checkpoint, or with none taken away. It outlives the checkpoint and its job, and never changes."""

    __tablename__ = "promotions"
    __table_args__ = (
        sa.Index("ix_promotions_project_id_id", "project_id", "id"),
        sa.Index("ix_promotions_project_id_alias_id", "project_id", "alias", "id"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = project_id()
    alias: Mapped[str] = mapped_column(sa.String(LONGEST_ALIAS))
    checkpoint_id: Mapped[str | None] = mapped_column(Id)
    job_id: Mapped[str | None] = mapped_column(Id)
    step: Mapped[int | None]
    previous_checkpoint_id: Mapped[str | None] = mapped_column(Id)
    proof: Mapped[dict[str, Any] | None]
    forced: Mapped[bool]
    reason: Mapped[str | None] = mapped_column(sa.String(LONGEST_REASON))
    created_at: Mapped[datetime]
