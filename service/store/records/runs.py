"""What a run said and left, but for its checkpoints."""

from datetime import datetime
from typing import Any

from alignment_core.events import SampleGrid
from service.store.records.base import Record, StoredFile


class EventRecord(Record):
    """An event as it was recorded: `data` is the event's own JSON, `seq` counts from 1 within the job."""

    id: str
    job_id: str
    seq: int
    attempt: int
    type: str
    data: dict[str, Any]
    time: datetime


class MetricRow(Record):
    """The metrics of one step. Those of the validation split are called `validation/<name>`."""

    step: int
    metrics: dict[str, float | None]


class SampleRecord(Record):
    """One PNG of images drawn from base and policy at `step`; `checkpoint_id` where it was asked for."""

    id: str
    job_id: str
    step: int
    attempt: int
    prompts: list[str]
    grid: SampleGrid | None
    checkpoint_id: str | None = None
    size_bytes: int
    sha256: str
    object_key: str
    created_at: datetime


class ReportRecord(Record):
    """The evaluation report of a job; `report` is a `reports.EvaluationReport` as JSON, `page` the same as HTML."""

    job_id: str
    step: int
    attempt: int
    report: dict[str, Any]
    page: StoredFile | None
    created_at: datetime


class ProofRecord(Record):
    """What an evaluation or a verification came to: its report as JSON, and of an evaluation the file of all scores."""

    job_id: str
    attempt: int
    report: dict[str, Any]
    scores: StoredFile | None
    created_at: datetime


class LogRecord(Record):
    job_id: str
    attempt: int
    text: str
    updated_at: datetime
