"""The tables. Rows never leave `service.store`: its functions hand out the frozen records of `records.py`."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from alignment_core.spec.exports import ExportFormat
from alignment_core.spec.sources import OnBadRow
from service.store.records import DatasetState, ExportState, UploadKind
from service.store.states import JobState


class UTCDateTime(sa.TypeDecorator[datetime]):
    """Aware datetimes in UTC on every database; SQLite, which knows no time zones, keeps them as naive UTC."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        assert value.tzinfo is not None, "a naive datetime would be read as another time elsewhere"
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    # names for constraints, so that a migration can find them on every database
    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - read by SQLAlchemy
        datetime: UTCDateTime,
        dict[str, Any]: sa.JSON(none_as_null=True),
        list[str]: sa.JSON(none_as_null=True),
        int: sa.BigInteger,
    }


Id = sa.String(40)
LONGEST_NAME = 200  # characters
LONGEST_FILENAME = 255
LONGEST_MODEL = 500  # PostgreSQL's index takes 2,700 bytes in all
LONGEST_LABEL_KEY = 64
LONGEST_LABEL_VALUE = 512


def project_id() -> Mapped[str]:
    return mapped_column(Id, sa.ForeignKey("projects.id"))


def job_id_key() -> Mapped[str]:
    return mapped_column(Id, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)


class Project(Base):
    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(LONGEST_NAME))
    created_at: Mapped[datetime]


class ApiKey(Base):
    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = project_id()
    name: Mapped[str] = mapped_column(sa.String(LONGEST_NAME))
    prefix: Mapped[str] = mapped_column(sa.String(40), unique=True)
    secret_sha256: Mapped[str] = mapped_column(sa.String(64))
    created_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class Job(Base):
    __tablename__ = "jobs"
    __table_args__ = (
        sa.Index("ix_jobs_project_id_id", "project_id", "id"),
        sa.Index("ix_jobs_project_id_state_id", "project_id", "state", "id"),
        sa.Index("ix_jobs_project_id_method_id", "project_id", "method", "id"),
        sa.Index("ix_jobs_project_id_model_id", "project_id", "model", "id"),
        sa.Index("ix_jobs_queue", "state", "queued_at", "id"),  # the line of queued jobs, in its order
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = project_id()
    name: Mapped[str | None] = mapped_column(sa.String(LONGEST_NAME))
    labels: Mapped[dict[str, Any]] = mapped_column("metadata")  # `metadata` is taken by SQLAlchemy
    spec: Mapped[dict[str, Any]]
    spec_sha256: Mapped[str] = mapped_column(sa.String(64))
    method: Mapped[str] = mapped_column(sa.String(64))
    model: Mapped[str] = mapped_column(sa.Text)

    state: Mapped[JobState] = mapped_column(sa.String(16))
    phase: Mapped[str | None] = mapped_column(sa.String(16))
    step: Mapped[int] = mapped_column(default=0)
    total_steps: Mapped[int | None]
    resume_from_checkpoint_id: Mapped[str | None] = mapped_column(Id)  # of another job
    eta_seconds: Mapped[float | None]
    error: Mapped[dict[str, Any] | None]
    latest_checkpoint_id: Mapped[str | None] = mapped_column(Id)
    result_checkpoint_id: Mapped[str | None] = mapped_column(Id)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    last_seq: Mapped[int] = mapped_column(default=0)
    metric_names: Mapped[list[str]] = mapped_column(default=list, server_default="[]")

    attempt: Mapped[int] = mapped_column(default=0)
    num_lost: Mapped[int] = mapped_column(default=0)
    worker_id: Mapped[str | None] = mapped_column(sa.String(LONGEST_NAME))
    lease_expires_at: Mapped[datetime | None]

    created_at: Mapped[datetime]
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
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

    job_id: Mapped[str] = job_id_key()
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[str] = project_id()
    id: Mapped[str] = mapped_column(Id, unique=True)
    attempt: Mapped[int]
    type: Mapped[str] = mapped_column(sa.String(40))
    data: Mapped[dict[str, Any]]
    time: Mapped[datetime]


class Metric(Base):
    """The metrics of one step and split. A step that a later attempt runs again replaces the row."""

    __tablename__ = "metrics"

    job_id: Mapped[str] = job_id_key()
    split: Mapped[str] = mapped_column(sa.String(16), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[str] = project_id()
    attempt: Mapped[int]
    figures: Mapped[dict[str, Any]]
    time: Mapped[datetime]


class Checkpoint(Base):
    __tablename__ = "checkpoints"
    __table_args__ = (sa.UniqueConstraint("job_id", "step"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    job_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("jobs.id", ondelete="CASCADE"))
    project_id: Mapped[str] = project_id()
    step: Mapped[int]
    attempt: Mapped[int]
    kind: Mapped[str] = mapped_column(sa.String(16))
    is_final: Mapped[bool]
    is_best: Mapped[bool] = mapped_column(default=False, server_default=sa.false())
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
    __table_args__ = (sa.UniqueConstraint("checkpoint_id", "format"), sa.Index(None, "state"))

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    checkpoint_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("checkpoints.id", ondelete="CASCADE"))
    job_id: Mapped[str] = mapped_column(Id)
    project_id: Mapped[str] = project_id()
    format: Mapped[ExportFormat] = mapped_column(sa.String(16))
    state: Mapped[ExportState] = mapped_column(sa.String(16))
    percent: Mapped[float]
    files: Mapped[list[dict[str, Any]]] = mapped_column(sa.JSON(none_as_null=True))
    error: Mapped[dict[str, Any] | None]

    attempt: Mapped[int]
    num_lost: Mapped[int]
    worker_id: Mapped[str | None] = mapped_column(sa.String(LONGEST_NAME))
    lease_expires_at: Mapped[datetime | None]

    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Sample(Base):
    __tablename__ = "samples"
    __table_args__ = (sa.UniqueConstraint("job_id", "step"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    job_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("jobs.id", ondelete="CASCADE"))
    project_id: Mapped[str] = project_id()
    step: Mapped[int]
    attempt: Mapped[int]
    prompts: Mapped[list[str]]
    size_bytes: Mapped[int]
    sha256: Mapped[str] = mapped_column(sa.String(64))
    object_key: Mapped[str] = mapped_column(sa.Text)
    created_at: Mapped[datetime]


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


class HostClock(Base):
    """At which time a host's monotonic clock read zero, for each start of the host; SQLite's leases are counted by it."""

    __tablename__ = "host_clocks"

    boot_id: Mapped[str] = mapped_column(Id, primary_key=True)
    zero_at: Mapped[datetime]


class JobLog(Base):
    """The end of what one attempt's process printed."""

    __tablename__ = "logs"

    job_id: Mapped[str] = job_id_key()
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[str] = project_id()
    text: Mapped[str] = mapped_column(sa.Text)
    updated_at: Mapped[datetime]


class Dataset(Base):
    """What a user uploaded to be checked: preference data, or with the kind `lora` weights to start from."""

    __tablename__ = "datasets"
    __table_args__ = (sa.Index("ix_datasets_project_id_id", "project_id", "id"), sa.Index(None, "state"))

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = project_id()
    name: Mapped[str | None] = mapped_column(sa.String(LONGEST_NAME))
    filename: Mapped[str] = mapped_column(sa.String(LONGEST_FILENAME))
    kind: Mapped[UploadKind] = mapped_column(sa.String(8), default="data", server_default="data")
    state: Mapped[DatasetState] = mapped_column(sa.String(16))
    size_bytes: Mapped[int | None]
    sha256: Mapped[str | None] = mapped_column(sa.String(64))
    object_key: Mapped[str | None] = mapped_column(sa.Text)
    columns: Mapped[dict[str, Any] | None]
    on_bad_row: Mapped[OnBadRow] = mapped_column(sa.String(8), default="fail", server_default="fail")
    format: Mapped[str | None] = mapped_column(sa.String(40))
    report: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]

    attempt: Mapped[int] = mapped_column(default=0)
    num_lost: Mapped[int] = mapped_column(default=0, server_default="0")
    worker_id: Mapped[str | None] = mapped_column(sa.String(LONGEST_NAME))
    lease_expires_at: Mapped[datetime | None]

    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


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


class IdempotencyKey(Base):
    __tablename__ = "idempotency_keys"

    project_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("projects.id"), primary_key=True)
    key: Mapped[str] = mapped_column(sa.String(255), primary_key=True)
    request_sha256: Mapped[str] = mapped_column(sa.String(64))
    resource_id: Mapped[str] = mapped_column(Id)
    status: Mapped[int | None]
    body: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]


class Removal(Base):
    """Objects of something that was deleted: everything under `prefix` is to go, see `removals.py`."""

    __tablename__ = "removals"

    prefix: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    created_at: Mapped[datetime]
    due_at: Mapped[datetime] = mapped_column(index=True)
