"""Sweeps and their score tables."""

from datetime import datetime
from typing import Any

from alignment_core.reports import Interval
from attune.resources.base import Resource


class Score(Resource):
    """A reward of a trial against the source; `low` and `high` are of its gain's interval."""

    name: str
    mean: float
    mean_interval: Interval | None = None
    gain: float
    low: float
    high: float
    win_rate: float
    p_value: float | None
    holm_p_value: float | None


class SourceScore(Resource):
    name: str
    mean: float
    mean_interval: Interval | None = None


class Source(Resource):
    """The model that all trials started from."""

    model: str
    scores: list[SourceScore]


class Trial(Resource):
    number: int
    point: dict[str, Any]
    job_id: str | None
    status: str
    error: str | None
    stopped_by: str | None
    verdict: str | None
    scores: list[Score]


class ScoreTable(Resource):
    """`best` is a trial's number, once all are over and the corrected test says that it is better than the source."""

    is_over: bool
    is_comparable: bool
    source: Source | None
    best: int | None
    trials: list[Trial]


class SweepSummary(Resource):
    id: str
    name: str | None
    metadata: dict[str, str]
    at_once: int
    num_trials: int
    is_cancelled: bool
    created_at: datetime


class Sweep(SweepSummary):
    table: ScoreTable
