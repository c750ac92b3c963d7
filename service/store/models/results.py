"""What a job leaves: checkpoints and their exports, pictures, reports; what evaluations leave."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from alignment_core.spec.exports import ExportFormat
from service.store.models.base import LONGEST_NAME, Base, Id, job_id_key, project_id
from service.store.records.checkpoints import ExportState, PushState
from service.store.traces import LONGEST_TRACEPARENT, current_traceparent


class Checkpoint(Base):
    __tablename__ = "checkpoints"
    __table_args__ = (sa.UniqueConstraint("job_id", "step"), sa.Index(None, "project_id"))

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    job_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("jobs.id", ondelete="CASCADE"))
    project_id: Mapped[str] = project_id()
    step: Mapped[int]
    attempt: Mapped[int]
    kind: Mapped[str] = mapped_column(sa.String(16))
    is_final: Mapped[bool]
    is_best: Mapped[bool] = mapped_column(default=False, server_default=sa.false())
    is_pinned: Mapped[bool] = mapped_column(default=False, server_default=sa.false())
    size_bytes: Mapped[int]
    created_at: Mapped[datetime]


class CheckpointFile(Base):
    __tablename__ = "checkpoint_files"

    checkpoint_id: Mapped[str] = mapped_column(
        Id, sa.ForeignKey("checkpoints.id", ondelete="CASCADE"), primary_key=True
    )
    path: Mapped[str] = mapped_column(sa.String(500), primary_key=True)
    size_bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(sa.String(64))
    crc32: Mapped[int | None]
    object_key: Mapped[str] = mapped_column(sa.Text)


class Export(Base):
    """A checkpoint in another form; `files` are `records.StoredFile`s."""

    __tablename__ = "exports"
    __table_args__ = (
        sa.UniqueConstraint("checkpoint_id", "format"),
        sa.Index(None, "state"),
        sa.Index(None, "project_id"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    checkpoint_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("checkpoints.id", ondelete="CASCADE"))
    job_id: Mapped[str] = mapped_column(Id)
    project_id: Mapped[str] = project_id()
    format: Mapped[ExportFormat] = mapped_column(sa.String(16))
    state: Mapped[ExportState] = mapped_column(sa.String(16))
    percent: Mapped[float]
    files: Mapped[list[dict[str, Any]]] = mapped_column(sa.JSON(none_as_null=True))
    size_bytes: Mapped[int] = mapped_column(default=0, server_default="0")
    error: Mapped[dict[str, Any] | None]

    attempt: Mapped[int]
    num_lost: Mapped[int]
    worker_id: Mapped[str | None] = mapped_column(sa.String(LONGEST_NAME))
    lease_expires_at: Mapped[datetime | None]
    traceparent: Mapped[str | None] = mapped_column(sa.String(LONGEST_TRACEPARENT), default=current_traceparent)

    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Push(Base):
    """A checkpoint that is brought to a repository of the Hub, with its model card."""

    __tablename__ = "pushes"
    __table_args__ = (
        sa.UniqueConstraint("checkpoint_id", "repo_id", "branch"),
        sa.Index(None, "state"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    checkpoint_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("checkpoints.id", ondelete="CASCADE"))
    job_id: Mapped[str] = mapped_column(Id)
    project_id: Mapped[str] = project_id()
    repo_id: Mapped[str] = mapped_column(sa.String(LONGEST_NAME))
    branch: Mapped[str] = mapped_column(sa.String(LONGEST_NAME))
    is_private: Mapped[bool]
    format: Mapped[ExportFormat] = mapped_column(sa.String(16))
    state: Mapped[PushState] = mapped_column(sa.String(16))
    commit: Mapped[str | None] = mapped_column(sa.String(64))
    url: Mapped[str | None] = mapped_column(sa.Text)
    error: Mapped[dict[str, Any] | None]

    attempt: Mapped[int]
    num_lost: Mapped[int]
    worker_id: Mapped[str | None] = mapped_column(sa.String(LONGEST_NAME))
    lease_expires_at: Mapped[datetime | None]
    traceparent: Mapped[str | None] = mapped_column(sa.String(LONGEST_TRACEPARENT), default=current_traceparent)

    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Sample(Base):
    __tablename__ = "samples"
    __table_args__ = (sa.UniqueConstraint("job_id", "step"), sa.Index(None, "project_id"))

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    job_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("jobs.id", ondelete="CASCADE"))
    project_id: Mapped[str] = project_id()
    step: Mapped[int]
    attempt: Mapped[int]
    prompts: Mapped[list[str]]
    grid: Mapped[dict[str, Any] | None]
    size_bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(sa.String(64))
    object_key: Mapped[str] = mapped_column(sa.Text)
    created_at: Mapped[datetime]


class TrackingFile(Base):
    """A complete event file of TensorBoard; those of all attempts are one log."""

    __tablename__ = "tracking_files"
    __table_args__ = (sa.Index(None, "project_id"),)

    job_id: Mapped[str] = job_id_key()
    path: Mapped[str] = mapped_column(sa.String(500), primary_key=True)
    project_id: Mapped[str] = project_id()
    size_bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(sa.String(64))
    crc32: Mapped[int]
    object_key: Mapped[str] = mapped_column(sa.Text)


class Report(Base):
    __tablename__ = "reports"

    job_id: Mapped[str] = job_id_key()
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[str] = project_id()
    attempt: Mapped[int]
    report: Mapped[dict[str, Any]]
    page_size_bytes: Mapped[int | None]
    page_sha256: Mapped[str | None] = mapped_column(sa.String(64))
    page_object_key: Mapped[str | None] = mapped_column(sa.Text)
    created_at: Mapped[datetime]


class Proof(Base):
    """The report of an evaluation or of a verification, and where the scores are."""

    __tablename__ = "proofs"

    job_id: Mapped[str] = job_id_key()
    project_id: Mapped[str] = project_id()
    attempt: Mapped[int]
    report: Mapped[dict[str, Any]]
    scores_size_bytes: Mapped[int | None]
    scores_sha256: Mapped[str | None] = mapped_column(sa.String(64))
    scores_object_key: Mapped[str | None] = mapped_column(sa.Text)
    created_at: Mapped[datetime]


class ProofShard(Base):
    """Some images of an evaluation with their scores: what a later attempt does not draw again."""

    __tablename__ = "proof_shards"

    job_id: Mapped[str] = job_id_key()
    path: Mapped[str] = mapped_column(sa.String(500), primary_key=True)
    project_id: Mapped[str] = project_id()
    size_bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(sa.String(64))
    object_key: Mapped[str] = mapped_column(sa.Text)
