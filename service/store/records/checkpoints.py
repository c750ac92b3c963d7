"""Checkpoints, their exports and their pushes."""

from datetime import datetime
from typing import Literal

from alignment_core.spec.exports import ExportFormat
from service.store.records.base import JobError, Record, StoredFile

ExportState = Literal["queued", "running", "ready", "failed"]
PushState = Literal["queued", "running", "pushed", "failed"]


class CheckpointRecord(Record):
    id: str
    job_id: str
    project_id: str
    step: int
    attempt: int
    kind: Literal["lora", "full"]
    is_final: bool
    is_best: bool
    is_pinned: bool = False
    size_bytes: int
    created_at: datetime
    files: tuple[StoredFile, ...]


class ExportRecord(Record):
    """A checkpoint in another form; `files` are there once it is ready."""

    id: str
    checkpoint_id: str
    job_id: str
    project_id: str
    format: ExportFormat
    state: ExportState
    percent: float
    files: tuple[StoredFile, ...]
    error: JobError | None
    attempt: int
    traceparent: str | None = None  # of what asked for it, where that was traced
    created_at: datetime
    updated_at: datetime


class PushRecord(Record):
    """A checkpoint that is brought to a repository of the Hub; `commit` and `url` are there once it is pushed."""

    id: str
    checkpoint_id: str
    job_id: str
    project_id: str
    repo_id: str
    branch: str
    is_private: bool
    format: ExportFormat
    state: PushState
    commit: str | None
    url: str | None
    error: JobError | None
    attempt: int
    traceparent: str | None = None  # of what asked for it, where that was traced
    created_at: datetime
    updated_at: datetime
