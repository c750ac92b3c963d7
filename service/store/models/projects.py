"""Who owns what, and who may say so."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from service.store.models.base import LONGEST_NAME, Base, Id, project_id
from service.store.records.projects import Outcome, Scope


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
    scope: Mapped[Scope] = mapped_column(sa.String(8), default="admin", server_default="admin")
    rotated_from_id: Mapped[str | None] = mapped_column(Id)  # the key that this one took the place of
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AuditEntry(Base):
    """Who did what. Rows are never changed; see `audit.py`."""

    __tablename__ = "audit"
    __table_args__ = (sa.Index("ix_audit_project_id_id", "project_id", "id"), sa.Index(None, "time"))

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = project_id()
    time: Mapped[datetime]
    key_id: Mapped[str | None] = mapped_column(Id)
    remote: Mapped[str | None] = mapped_column(sa.String(LONGEST_NAME))
    action: Mapped[str] = mapped_column(sa.String(LONGEST_NAME))
    object_ids: Mapped[list[str]]
    outcome: Mapped[Outcome] = mapped_column(sa.String(8))
    status: Mapped[int | None]
    request_id: Mapped[str | None] = mapped_column(sa.String(LONGEST_NAME))


class Quota(Base):
    """A project's own limits: null is the server's, -1 none. See `limits.py`."""

    __tablename__ = "quotas"

    project_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("projects.id"), primary_key=True)
    jobs: Mapped[int | None]
    submits: Mapped[int | None]
    gpu_hours: Mapped[float | None] = mapped_column(sa.Float)
    bytes: Mapped[int | None]


class SubmitCount(Base):
    """Jobs that were submitted in an hour of the clock."""

    __tablename__ = "submit_counts"

    project_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("projects.id"), primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    used: Mapped[int]


class ProcessTime(Base):
    """Seconds of all processes of attempts in a month of the calendar."""

    __tablename__ = "process_time"

    project_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("projects.id"), primary_key=True)
    month: Mapped[datetime] = mapped_column(primary_key=True)
    used: Mapped[float] = mapped_column(sa.Float)
