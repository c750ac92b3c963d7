"""A job and what its run says while it goes on."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from alignment_core.events import Action
from service.store.models.base import (
    LONGEST_LABEL_KEY,
    LONGEST_LABEL_VALUE,
    LONGEST_NAME,
    Base,
    Id,
    job_id_key,
    project_id,
)
from service.store.records.jobs import ForkMode, ForkReference, PauseKeeps
from service.store.states import JobState
from service.store.traces import LONGEST_TRACEPARENT, current_traceparent

OF_EACH_STEP = "step_completed"  # the type of nearly all events of a long run


class Job(Base):
    __tablename__ = "jobs"
    __table_args__ = (
        sa.Index("ix_jobs_project_id_id", "project_id", "id"),
        sa.Index("ix_jobs_project_id_state_id", "project_id", "state", "id"),
        sa.Index("ix_jobs_project_id_method_id", "project_id", "method", "id"),
        sa.Index("ix_jobs_project_id_model_id", "project_id", "model", "id"),
        sa.Index("ix_jobs_parent_job_id_id", "parent_job_id", "id"),
        sa.Index("ix_jobs_queue", "state", "turn", "queued_at", "id"),  # the line of queued jobs, in its order
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = project_id()
    name: Mapped[str | None] = mapped_column(sa.String(LONGEST_NAME))
    labels: Mapped[dict[str, Any]] = mapped_column("metadata")  # `metadata` is taken by SQLAlchemy
    spec: Mapped[dict[str, Any]]
    estimate: Mapped[dict[str, Any] | None]
    spec_sha256: Mapped[str] = mapped_column(sa.String(64))
    method: Mapped[str] = mapped_column(sa.String(64))
    model: Mapped[str] = mapped_column(sa.Text)
    processes: Mapped[int] = mapped_column(default=1, server_default="1")
    card_gib: Mapped[float | None] = mapped_column(sa.Float)  # that each needs of its card, where that was estimated

    turn: Mapped[int] = mapped_column(default=1, server_default="1")  # 0 comes before all that have 1

    state: Mapped[JobState] = mapped_column(sa.String(16))
    phase: Mapped[str | None] = mapped_column(sa.String(16))
    step: Mapped[int] = mapped_column(default=0)
    total_steps: Mapped[int | None]
    resume_from_checkpoint_id: Mapped[str | None] = mapped_column(Id)  # of another job
    parent_job_id: Mapped[str | None] = mapped_column(Id)  # as it was: the parent may be deleted since
    parent_checkpoint_id: Mapped[str | None] = mapped_column(Id)
    parent_step: Mapped[int | None]
    fork_mode: Mapped[ForkMode | None] = mapped_column(sa.String(16))
    fork_reference: Mapped[ForkReference | None] = mapped_column(sa.String(16))
    check_only: Mapped[bool] = mapped_column(default=False, server_default=sa.false())
    eta_seconds: Mapped[float | None]
    error: Mapped[dict[str, Any] | None]
    latest_checkpoint_id: Mapped[str | None] = mapped_column(Id)
    result_checkpoint_id: Mapped[str | None] = mapped_column(Id)
    pause_keeps: Mapped[PauseKeeps | None] = mapped_column(sa.String(16))
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    last_seq: Mapped[int] = mapped_column(default=0)
    traceparent: Mapped[str | None] = mapped_column(sa.String(LONGEST_TRACEPARENT), default=current_traceparent)
    metric_names: Mapped[list[str]] = mapped_column(default=list, server_default="[]")

    attempt: Mapped[int] = mapped_column(default=0)
    num_lost: Mapped[int] = mapped_column(default=0)
    worker_id: Mapped[str | None] = mapped_column(sa.String(LONGEST_NAME))
    lease_expires_at: Mapped[datetime | None]

    created_at: Mapped[datetime]
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    attempt_started_at: Mapped[datetime | None]  # of the attempt that holds it
    finished_at: Mapped[datetime | None]
    updated_at: Mapped[datetime]


class JobLabel(Base):
    """A pair of a job's metadata, where an index finds it."""

    __tablename__ = "job_labels"
    __table_args__ = (sa.Index("ix_job_labels_project_id_key_value_job_id", "project_id", "key", "value", "job_id"),)

    job_id: Mapped[str] = job_id_key()
    key: Mapped[str] = mapped_column(sa.String(LONGEST_LABEL_KEY), primary_key=True)
    project_id: Mapped[str] = project_id()
    value: Mapped[str] = mapped_column(sa.String(LONGEST_LABEL_VALUE))


class JobEvent(Base):
    __tablename__ = "events"
    __table_args__ = (  # of a long run nearly all events are steps
        sa.Index(
            "ix_events_beside_steps",
            "job_id",
            "seq",
            sqlite_where=sa.text(f"type != '{OF_EACH_STEP}'"),
            postgresql_where=sa.text(f"type != '{OF_EACH_STEP}'"),
        ),
    )

    job_id: Mapped[str] = job_id_key()
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[str] = project_id()
    id: Mapped[str] = mapped_column(Id, unique=True)
    attempt: Mapped[int]
    type: Mapped[str] = mapped_column(sa.String(40))
    data: Mapped[dict[str, Any]]
    time: Mapped[datetime]


class Metric(Base):
    """The metrics of one step and split, of all events that speak of it. A step that a later attempt runs again replaces the row."""

    __tablename__ = "metrics"

    job_id: Mapped[str] = job_id_key()
    split: Mapped[str] = mapped_column(sa.String(16), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[str] = project_id()
    attempt: Mapped[int]
    figures: Mapped[dict[str, Any]]
    time: Mapped[datetime]


class MetricBlock(Base):
    """Of 64 steps of a split: for each figure step and value of its lowest and of its highest, as `metric_extremes` reads them."""

    __tablename__ = "metric_blocks"

    job_id: Mapped[str] = job_id_key()
    split: Mapped[str] = mapped_column(sa.String(16), primary_key=True)
    block: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[str] = project_id()
    extremes: Mapped[dict[str, Any]]


class JobAction(Base):
    """Something that is asked of a job while it runs; unanswered without `answered_at`."""

    __tablename__ = "actions"
    __table_args__ = (sa.Index("ix_actions_job_id_id", "job_id", "id"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    job_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("jobs.id", ondelete="CASCADE"))
    project_id: Mapped[str] = project_id()
    action: Mapped[Action] = mapped_column(sa.String(16))
    step: Mapped[int | None]
    metrics: Mapped[dict[str, Any] | None]
    refused: Mapped[str | None] = mapped_column(sa.Text)
    created_at: Mapped[datetime]
    answered_at: Mapped[datetime | None]


class JobLog(Base):
    """The end of what one attempt's process printed."""

    __tablename__ = "logs"

    job_id: Mapped[str] = job_id_key()
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[str] = project_id()
    text: Mapped[str] = mapped_column(sa.Text)
    updated_at: Mapped[datetime]
