"""What a user uploaded: data and weights, which a worker checks, and prompts, which are checked as they arrive; and files on their way."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from alignment_core.spec.sources import OnBadRow
from service.store.models.base import LONGEST_FILENAME, LONGEST_NAME, Base, Id, project_id
from service.store.records.uploads import DatasetState, UploadKind, UploadPurpose, UploadState
from service.store.traces import LONGEST_TRACEPARENT, current_traceparent


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
    encoded_bytes: Mapped[int] = mapped_column(default=0, server_default="0")  # of its images and prompts, where shared
    browsing_bytes: Mapped[int] = mapped_column(default=0, server_default="0")  # of its rows and their thumbnails
    browsing_key: Mapped[str | None] = mapped_column(sa.Text)
    sha256: Mapped[str | None] = mapped_column(sa.String(64))
    object_key: Mapped[str | None] = mapped_column(sa.Text)
    columns: Mapped[dict[str, Any] | None]
    on_bad_row: Mapped[OnBadRow] = mapped_column(sa.String(8), default="fail", server_default="fail")
    format: Mapped[str | None] = mapped_column(sa.String(40))
    report: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    provenance: Mapped[dict[str, Any] | None]  # of one that was made here

    attempt: Mapped[int] = mapped_column(default=0)
    num_lost: Mapped[int] = mapped_column(default=0, server_default="0")
    worker_id: Mapped[str | None] = mapped_column(sa.String(LONGEST_NAME))
    lease_expires_at: Mapped[datetime | None]
    traceparent: Mapped[str | None] = mapped_column(sa.String(LONGEST_TRACEPARENT), default=current_traceparent)

    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class PromptSet(Base):
    """Prompts that were uploaded. `sha256` is that of the prompts, `file_sha256` that of the jsonl file they are kept as."""

    __tablename__ = "prompt_sets"
    __table_args__ = (sa.Index("ix_prompt_sets_project_id_id", "project_id", "id"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = project_id()
    name: Mapped[str | None] = mapped_column(sa.String(LONGEST_NAME))
    filename: Mapped[str] = mapped_column(sa.String(LONGEST_FILENAME))
    num_prompts: Mapped[int]
    sha256: Mapped[str] = mapped_column(sa.String(64))
    report: Mapped[dict[str, Any]]
    size_bytes: Mapped[int]
    file_sha256: Mapped[str] = mapped_column(sa.String(64))
    object_key: Mapped[str] = mapped_column(sa.Text)
    created_at: Mapped[datetime]


class Upload(Base):
    """A file that arrives piece by piece, see `uploads.py`. `said` is what its owner says of it, as in the form of a whole one."""

    __tablename__ = "uploads"
    __table_args__ = (sa.Index("ix_uploads_project_id_id", "project_id", "id"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = project_id()
    purpose: Mapped[UploadPurpose] = mapped_column(sa.String(16))
    filename: Mapped[str] = mapped_column(sa.String(LONGEST_FILENAME))
    size_bytes: Mapped[int]
    sha256: Mapped[str | None] = mapped_column(sa.String(64))
    said: Mapped[dict[str, Any]]
    state: Mapped[UploadState] = mapped_column(sa.String(16))
    received_bytes: Mapped[int]
    num_pieces: Mapped[int]
    reserved_bytes: Mapped[int]  # of the quota, until what is made of it counts itself
    attempt: Mapped[int]  # at making it
    resource_id: Mapped[str | None] = mapped_column(Id)
    refusal: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class UploadPiece(Base):
    """Bytes of an upload from `start` on."""

    __tablename__ = "upload_pieces"

    upload_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True)
    start: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    size_bytes: Mapped[int]
    object_key: Mapped[str] = mapped_column(sa.Text)
