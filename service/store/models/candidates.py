"""Images that models drew for people to judge."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from service.store.models.base import LONGEST_NAME, Base, Id, job_id_key, project_id


class CandidateImage(Base):
    """An image of a contender; `drawn_alike` and `fingerprint` find it again where the same is to be drawn once more."""

    __tablename__ = "candidate_images"
    __table_args__ = (
        sa.UniqueConstraint("job_id", "contender", "position", "number"),
        sa.Index("ix_candidate_images_job_id_id", "job_id", "id"),
        sa.Index("ix_candidate_images_project_id_drawn_alike_id", "project_id", "drawn_alike", "id"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    job_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("jobs.id", ondelete="CASCADE"))
    project_id: Mapped[str] = project_id()
    contender: Mapped[str] = mapped_column(sa.String(LONGEST_NAME))
    position: Mapped[int]
    number: Mapped[int]
    prompt: Mapped[str] = mapped_column(sa.Text)
    seed: Mapped[int]
    attempt: Mapped[int]
    width: Mapped[int]
    height: Mapped[int]
    pixels_sha256: Mapped[str] = mapped_column(sa.String(64))
    fingerprint: Mapped[str] = mapped_column(sa.String(64))
    drawn_alike: Mapped[str] = mapped_column(sa.String(64))
    reused: Mapped[bool]
    size_bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(sa.String(64))
    object_key: Mapped[str] = mapped_column(sa.Text)
    created_at: Mapped[datetime]


class CandidateRecipe(Base):
    """What an attempt drew a contender's images with: a `reports.ImageRecipe`."""

    __tablename__ = "candidate_recipes"

    job_id: Mapped[str] = job_id_key()
    contender: Mapped[str] = mapped_column(sa.String(LONGEST_NAME), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[str] = project_id()
    recipe: Mapped[dict[str, Any]]
