"""Sweeps and their trials."""

from datetime import datetime
from typing import Any

from service.store.records.base import Record


class SweepRecord(Record):
    """One job for each of several settings; `is_open` while some are yet to be queued."""

    id: str
    name: str | None
    metadata: dict[str, str]
    search: dict[str, Any]
    at_once: int
    num_trials: int
    is_open: bool
    is_cancelled: bool
    created_at: datetime


class TrialRecord(Record):
    """A setting of a sweep, and what has become of its job."""

    number: int
    point: dict[str, Any]
    job_id: str | None
    state: str
    error: str | None
    stopped_by: str | None
    report: dict[str, Any] | None
