"""Jobs, their place in the queue, where they come from, and what is asked of them."""

from datetime import datetime
from typing import Any, Literal

from alignment_core.events import Action
from service.store.records.base import JobError, Record
from service.store.states import TERMINAL, JobState

ActionState = Literal["waiting", "done", "refused", "unanswered"]
PauseKeeps = Literal["last_step", "last_checkpoint"]
ForkMode = Literal["resume", "warm_start"]
ForkReference = Literal["base", "checkpoint"]


class Progress(Record):
    step: int
    total: int | None
    percent: float | None
    eta_seconds: float | None


class QueuePlace(Record):
    """Where a queued job stands among the queued jobs of its class, of all projects: 1 is next.

    `ahead` counts what it waits for: the queued jobs of its class before it, and those that workers hold just now.
    """

    position: int
    ahead: int


class ParentRecord(Record):
    """The checkpoint that a job was forked from; `reference` is what a warm start is held to."""

    job_id: str
    checkpoint_id: str
    step: int
    mode: ForkMode
    reference: ForkReference | None


class Gain(Record):
    """What a job's latest report says of its first reward: policy less base, with the interval's ends."""

    reward: str
    gain: float
    low: float
    high: float
    confidence: float
    verdict: str


class JobSummary(Record):
    """A job without its spec, which may hold thousands of prompts."""

    id: str
    project_id: str
    name: str | None
    metadata: dict[str, str]
    spec_sha256: str
    method: str
    model: str
    state: JobState
    phase: str | None
    attempt: int
    progress: Progress
    queue: QueuePlace | None = None
    outcome: Gain | None = None
    resume_from_checkpoint_id: str | None = None
    parent: ParentRecord | None = None
    check_only: bool = False
    error: JobError | None
    latest_checkpoint_id: str | None
    result_checkpoint_id: str | None
    pause_keeps: PauseKeeps | None = None
    cancel_requested: bool
    worker_id: str | None
    lease_expires_at: datetime | None
    created_at: datetime
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime
    last_seq: int
    metric_names: tuple[str, ...]

    @property
    def is_terminal(self) -> bool:
        return self.state in TERMINAL


class RelativeRecord(Record):
    """A job that was forked from a checkpoint of another."""

    job_id: str
    name: str | None
    state: JobState
    parent: ParentRecord


class JobRecord(JobSummary):
    """A job with its spec, every default written out."""

    spec: dict[str, Any]
    estimate: dict[str, Any] | None = None


class Claim(Record):
    """A worker's hold on a job. `attempt` is the fencing token that every later write carries."""

    job: JobRecord
    attempt: int
    lease_expires_at: datetime
    traceparent: str | None = None  # of the request that queued it, where that was traced


class ActionRecord(Record):
    """Something that was asked of a job while it runs, and what its run answered."""

    id: str
    job_id: str
    action: Action
    state: ActionState
    step: int | None
    metrics: dict[str, float]
    refused: str | None
    created_at: datetime
    answered_at: datetime | None
