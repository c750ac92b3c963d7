"""Pairs of candidates that people judge, and what they say of them."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from service.store.models.base import LONGEST_NAME, Base, Id, project_id


def _labeling_id() -> Mapped[str]:
    return mapped_column(Id, sa.ForeignKey("labelings.id", ondelete="CASCADE"), primary_key=True)


class Labeling(Base):
    """`between` names two contenders that are compared blind, `report_of` the job or evaluation whose report tells it."""

    __tablename__ = "labelings"
    __table_args__ = (
        sa.Index("ix_labelings_project_id_id", "project_id", "id"),
        sa.Index("ix_labelings_candidates_id", "candidates_id"),
        sa.Index("ix_labelings_report_of", "report_of"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = project_id()
    name: Mapped[str | None] = mapped_column(sa.String(LONGEST_NAME))
    candidates_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("jobs.id"))
    between: Mapped[list[str] | None]
    report_of: Mapped[str | None] = mapped_column(Id)
    seed: Mapped[int]
    num_pairs: Mapped[int]
    num_questions: Mapped[int]
    created_at: Mapped[datetime]


class LabelingQuestion(Base):
    """Two images of one prompt; `repeat_of` is the question that it asks a second time."""

    __tablename__ = "labeling_questions"

    labeling_id: Mapped[str] = _labeling_id()
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[str] = project_id()
    first_id: Mapped[str] = mapped_column(Id)
    second_id: Mapped[str] = mapped_column(Id)
    repeat_of: Mapped[int | None]


class LabelingVote(Base):
    """What somebody said last of a question: of `first` and `second`, wherever these were shown."""

    __tablename__ = "labeling_votes"

    labeling_id: Mapped[str] = _labeling_id()
    annotator: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[str] = project_id()
    choice: Mapped[str] = mapped_column(sa.String(8))
    voted_at: Mapped[datetime]
