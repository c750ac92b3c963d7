"""A sweep over HTTP: what is asked for, and its score table."""

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from alignment_core.reports import Interval
from alignment_core.spec import JobSpec
from alignment_core.spec.points import Search
from service.api.schemas.base import Entry, RequestBody, Resource, with_example
from service.api.schemas.job_examples import JOB_ID, SPEC_EXAMPLE
from service.api.schemas.texts import MetadataKey, MetadataValue, Text
from service.store.records.sweeps import SweepRecord

SWEEP_ID = "swp_01kaf0s1u3w5y7a9c2e4g6j8m0"
SEARCH_EXAMPLE: dict[str, Any] = {"type": "grid", "axes": {"training.learning_rate": [0.0001, 0.0003]}}
SWEEP_REQUEST_EXAMPLE: dict[str, Any] = {
    "spec": SPEC_EXAMPLE,
    "search": SEARCH_EXAMPLE,
    "at_once": 2,
    "name": "learning rates",
}
SUMMARY: dict[str, Any] = {
    "id": SWEEP_ID,
    "object": "sweep",
    "name": "learning rates",
    "metadata": {},
    "search": SEARCH_EXAMPLE,
    "at_once": 2,
    "num_trials": 2,
    "is_cancelled": False,
    "created_at": "2026-11-20T09:15:00Z",
}


class SweepRequest(RequestBody):
    """One job for each point of a search, of which so many run at once."""

    model_config = ConfigDict(json_schema_extra={"examples": [SWEEP_REQUEST_EXAMPLE]})

    spec: JobSpec = Field(description="The base spec; each trial sets some of its fields.")
    search: Search = Field(description="Which fields take which values: a grid, a list, or drawn at random by a seed.")
    at_once: int = Field(
        1, ge=1, le=64, description="Jobs of the sweep that are queued or run at the same time, at most."
    )
    name: Text | None = Field(None, description="A name for people; the trials are called `NAME 0`, `NAME 1`, ...")
    metadata: dict[MetadataKey, MetadataValue] = Field(
        default_factory=dict, max_length=15, description="Of the jobs, which also have `sweep` with the sweep's id."
    )


class Score(Resource):
    """One reward of a trial's report: its model against the source on the same prompts and seeds."""

    name: str
    mean: float
    mean_interval: Interval | None = Field(description="Student's t over the prompts; null with one prompt.")
    gain: float
    low: float = Field(description="Of the gain's interval.")
    high: float
    win_rate: float
    p_value: float | None
    holm_p_value: float | None = Field(description="After Holm's correction over the trials that have a report.")


class SourceScore(Resource):
    """One reward of the model that all trials started from."""

    name: str
    mean: float
    mean_interval: Interval | None = Field(description="Student's t over the prompts; null with one prompt.")


class Source(Resource):
    """The model that all trials started from, on the same prompts and seeds: what every gain is over."""

    model: str = Field(description="What the spec calls it.")
    scores: list[SourceScore]


class Trial(Resource):
    """A point and what has become of its job."""

    number: int
    point: dict[str, Any]
    job_id: str | None
    status: str = Field(description="That of the job; `waiting` before it is queued, `deleted` once it is gone.")
    error: str | None
    stopped_by: str | None = Field(description="The guard that ended its training before the last step.")
    verdict: str | None
    scores: list[Score]


class ScoreTable(Resource):
    """Every trial against the model that all of them started from."""

    is_over: bool = Field(description="Whether no trial will change any more.")
    is_comparable: bool = Field(
        description="Whether all trials started from one model and drew the same prompts and seeds."
    )
    source: Source | None = Field(description="Null before the first report, and where `is_comparable` is false.")
    best: int | None = Field(
        description="The trial with the largest gain of the first reward, if the corrected test says that it is better than the source; "
        "null with `is_over`: the source stands."
    )
    trials: list[Trial]


TABLE_EXAMPLE: dict[str, Any] = {
    "is_over": True,
    "is_comparable": True,
    "source": {
        "model": "shapes",
        "scores": [
            {"name": "colorfulness", "mean": 0.677, "mean_interval": {"low": 0.66, "high": 0.694, "confidence": 0.95}}
        ],
    },
    "best": 1,
    "trials": [
        {
            "number": number,
            "point": {"training.learning_rate": rate},
            "job_id": JOB_ID,
            "status": "succeeded",
            "error": None,
            "stopped_by": None,
            "verdict": "improved",
            "scores": [
                {
                    "name": "colorfulness",
                    "mean": 0.677 + gain,
                    "mean_interval": {"low": 0.66 + gain, "high": 0.694 + gain, "confidence": 0.95},
                    "gain": gain,
                    "low": gain - 0.02,
                    "high": gain + 0.02,
                    "win_rate": 0.9,
                    "p_value": 0.0001,
                    "holm_p_value": 0.0002,
                }
            ],
        }
        for number, rate, gain in ((0, 0.0001, 0.104), (1, 0.0003, 0.203))
    ],
}


class SweepSummary(Entry):
    """A sweep without its trials."""

    model_config = with_example(SUMMARY)

    object: Literal["sweep"] = "sweep"
    name: str | None
    metadata: dict[str, str]
    search: dict[str, Any]
    at_once: int
    num_trials: int
    is_cancelled: bool
    created_at: datetime

    @classmethod
    def of(cls, sweep: SweepRecord) -> "SweepSummary":
        return cls.model_validate(sweep.model_dump(exclude={"is_open"}))


class Sweep(SweepSummary):
    """One job for each of several settings, and how they compare."""

    model_config = with_example({**SUMMARY, "table": TABLE_EXAMPLE})

    table: ScoreTable

    @classmethod
    def whole(cls, sweep: SweepRecord, table: ScoreTable) -> "Sweep":
        return cls.model_validate({**sweep.model_dump(exclude={"is_open"}), "table": table.model_dump()})
