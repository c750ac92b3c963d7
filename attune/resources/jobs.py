"""Jobs, how far they are, and where they come from."""

from datetime import datetime
from typing import Any, Literal

from alignment_core.events import Action, StartCheck, Throughput
from attune.resources.base import Resource, ResourceError

JobStatus = Literal[
    "validating",
    "queued",
    "starting",
    "running",
    "finalizing",
    "pausing",
    "paused",
    "cancelling",
    "succeeded",
    "cancelled",
    "failed",
]


class Progress(Resource):
    step: int
    total: int | None
    percent: float | None
    eta_seconds: float | None


class QueuePlace(Resource):
    """Where a queued job stands: 1 is next; `ahead` counts the jobs that it waits for, queued or running."""

    position: int
    ahead: int


class Parent(Resource):
    """The checkpoint that a job was forked from; `reference` is what a warm start is held to."""

    job_id: str
    checkpoint_id: str
    step: int
    mode: Literal["resume", "warm_start"]
    reference: Literal["base", "checkpoint"] | None


class Child(Resource):
    """A job that was forked from a checkpoint of another."""

    job_id: str
    name: str | None
    status: JobStatus
    parent: Parent


class Ancestry(Resource):
    """Where a job comes from, the nearest first, and what came from it, the newest first."""

    job_id: str
    ancestors: list[Parent]
    children: list[Child]


class Outcome(Resource):
    """What a job's latest report says of its first reward: the gain, and its interval's ends."""

    reward: str
    gain: float
    low: float
    high: float
    confidence: float
    verdict: Literal["improved", "not_improved", "worse", "unknown"]


class JobSummary(Resource):
    """A job as lists, cancel, pause and resume answer it: without its spec."""

    id: str
    name: str | None
    metadata: dict[str, str]
    status: JobStatus
    is_terminal: bool
    phase: str | None
    attempt: int
    resume_from: dict[str, str] | None = None
    parent: Parent | None = None
    check_only: bool = False
    pause_keeps: Literal["last_step", "last_checkpoint"] | None = None
    queue: QueuePlace | None = None
    outcome: Outcome | None = None
    progress: Progress
    error: ResourceError | None
    latest_checkpoint_id: str | None
    result_checkpoint_id: str | None = None
    created_at: datetime
    finished_at: datetime | None


class StartChecks(Resource):
    """What was tried before a run, and how long that took."""

    checks: list[StartCheck]
    seconds: float
    checkpoint_bytes: int
    peak_device_gib: float | None


class JobUsage(Resource):
    """What a job took until now, its lost attempts included."""

    num_attempts: int
    seconds: dict[str, float]
    process_seconds: float
    gpu_seconds: float
    peak_device_gib: float | None
    peak_host_gib: float | None
    stored_bytes: int
    estimated_seconds: float | None
    over_estimate: float | None


class Job(JobSummary):
    spec: dict[str, Any]
    throughput: Throughput | None = None
    start_checks: StartChecks | None = None
    estimate: dict[str, Any] | None = None
    usage: JobUsage | None = None


class JobAction(Resource):
    """Something that was asked of a job while it runs, and what the run answered."""

    id: str
    job_id: str
    action: Action
    status: Literal["waiting", "done", "refused", "unanswered"]
    step: int | None
    metrics: dict[str, float]
    refused: str | None


class Validation(Resource):
    valid: bool
    errors: list[dict[str, Any]]
    warnings: list[str]
    resolved_spec: dict[str, Any] | None
    estimate: dict[str, Any] | None
