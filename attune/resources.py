"""What the server answers, as far as the client reads it. Fields that a newer server adds are ignored."""

import json
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from alignment_core.events import Action, Event, SampleGrid, StartCheck, Throughput, event_from_json
from alignment_core.prompt_files import PromptsReport
from alignment_core.reports import Interval, VerificationReport, WeightsReport

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


class Resource(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class ResourceError(Resource):
    """Why a job or a dataset failed."""

    code: str
    message: str
    category: str
    retryable: bool
    hint: str | None = None


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


class Usage(Resource):
    """What the attempts of a project took that ended within a time."""

    since: datetime | None
    until: datetime | None
    num_attempts: int
    seconds: dict[str, float]
    process_seconds: float
    gpu_seconds: float
    stored_bytes: int


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


class Dataset(Resource):
    id: str
    name: str | None
    filename: str
    status: Literal["uploading", "checking", "ready", "failed"]
    size_bytes: int | None
    encoded_bytes: int = 0
    browsing_bytes: int = 0
    sha256: str | None
    columns: dict[str, str] | None = None
    num_usable_rows: int | None
    error: ResourceError | None
    provenance: dict[str, Any] | None = None


class PairProblem(Resource):
    """What the check of a data set says of one row."""

    code: str
    severity: Literal["error", "warning"]
    message: str


class PairImage(Resource):
    """An image of a row; `thumbnail_url` is None where no small picture of it is kept."""

    width: int
    height: int
    thumbnail_url: str | None


class Pair(Resource):
    """A row of a data set, with what its check says of it; in one of single images `image` is set, else `chosen` and `rejected`."""

    id: str
    row: int
    is_usable: bool
    prompt: str | None
    label: float | None
    liked: bool | None
    score: float | None
    group_id: str | None
    swapped: bool
    chosen: PairImage | None
    rejected: PairImage | None
    image: PairImage | None
    problems: list[PairProblem]


class Weights(Resource):
    id: str
    name: str | None
    filename: str
    status: Literal["uploading", "checking", "ready", "failed"]
    size_bytes: int | None
    sha256: str | None
    report: WeightsReport | None
    error: ResourceError | None


class ApiKey(Resource):
    """A key without its secret."""

    id: str
    name: str
    prefix: str
    scope: Literal["read", "submit", "admin"]
    status: Literal["active", "expired", "revoked"]
    rotated_from_id: str | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class NewKey(ApiKey):
    """The one answer that shows `key`."""

    key: str


class BrowserSession(Resource):
    """A browser that signed in with a key."""

    id: str
    key_id: str
    remote: str | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime


class SignedLink(Resource):
    """An address that needs no key until `expires_at`."""

    url: str
    expires_at: datetime


class AuditEntry(Resource):
    """Something that was asked of a project and would have changed it."""

    id: str
    time: datetime
    key_id: str | None
    remote: str | None
    action: str
    object_ids: list[str]
    outcome: Literal["done", "refused", "failed"]
    status: int | None
    request_id: str | None


class PromptSet(Resource):
    """Uploaded prompts; `sha256` is theirs, `file_sha256` that of the jsonl file which a download gives."""

    id: str
    name: str | None
    filename: str
    num_prompts: int
    sha256: str
    size_bytes: int
    file_sha256: str
    report: PromptsReport
    created_at: datetime


class Upload(Resource):
    """A file on its way; the next piece begins at `offset`, and `resource_id` is what it has become."""

    id: str
    purpose: str
    filename: str
    name: str | None
    size_bytes: int
    sha256: str | None
    status: str
    offset: int
    resource_id: str | None
    created_at: datetime
    expires_at: datetime


class RetentionPolicy(Resource):
    keep_last: int | None
    keep_best: bool
    ttl_days: float | None
    unfinished_days: float | None = None


class CheckpointOutlook(Resource):
    """Whether a checkpoint goes with the next sweep, and why or why not."""

    id: str
    goes: bool
    reason: str


class JobPins(Resource):
    """What is pinned as it is saved."""

    steps: list[int] = []
    result: bool = False


class JobRetention(Resource):
    job_id: str
    policy: RetentionPolicy
    is_own: bool
    pins: JobPins = JobPins()
    checkpoints: list[CheckpointOutlook]


class Quota(Resource):
    """What a project may take of one thing; `limit` is None where there is none."""

    id: str
    limit: float | None
    used: float
    resets_at: datetime | None


class CheckpointFile(Resource):
    path: str
    size_bytes: int
    sha256: str


class Checkpoint(Resource):
    id: str
    job_id: str
    step: int
    kind: Literal["lora", "full"]
    is_final: bool
    is_best: bool = False
    is_pinned: bool = False
    size_bytes: int


class Export(Resource):
    """A checkpoint in another form, and how far it is."""

    id: str
    checkpoint_id: str
    format: str
    status: Literal["queued", "running", "ready", "failed"]
    percent: float
    files: list[CheckpointFile]
    error: ResourceError | None


class Push(Resource):
    """A checkpoint in a repository of the Hub; `commit` and `url` are there once it is pushed."""

    id: str
    checkpoint_id: str
    repo_id: str
    branch: str
    private: bool
    format: str
    status: Literal["queued", "running", "pushed", "failed"]
    commit: str | None
    url: str | None
    error: ResourceError | None


class Sample(Resource):
    id: str
    step: int
    prompts: list[str]
    grid: SampleGrid | None = None
    checkpoint_id: str | None = None
    size_bytes: int
    sha256: str
    image_url: str

    def file(self, name: str) -> CheckpointFile:
        """The picture as a file of this name that a download is checked against."""
        return CheckpointFile(path=name, size_bytes=self.size_bytes, sha256=self.sha256)


class JobEvent(Resource):
    """Something that happened in a run; `event` is what happened, typed where this client knows the type."""

    id: str
    sequence: int
    attempt: int
    type: str
    data: dict[str, Any]

    @property
    def event(self) -> Event | None:
        try:
            return event_from_json(json.dumps(self.data))
        except ValidationError:
            return None  # of a newer server


class Validation(Resource):
    valid: bool
    errors: list[dict[str, Any]]
    warnings: list[str]
    resolved_spec: dict[str, Any] | None
    estimate: dict[str, Any] | None


class EvaluationValidation(Validation):
    """The same of an evaluation; its estimate has `num_images`, `memory`, `duration` and `stored`."""


class MetricPoint(Resource):
    step: int
    metrics: dict[str, float | None]


class Proof(Resource):
    """What the report on a checkpoint says of its primary reward."""

    job_id: str
    step: int
    report_sha256: str
    reward: str
    gain: float
    low: float
    high: float
    confidence: float
    holm_p_value: float | None = None
    verdict: str
    num_prompts: int
    evaluation_id: str | None = None
    contender: str | None = None
    anchor: str | None = None


class Promotion(Resource):
    """A name that moved onto a checkpoint, or that was taken away."""

    id: str
    alias: str
    checkpoint_id: str | None
    job_id: str | None
    step: int | None
    previous_checkpoint_id: str | None
    proof: Proof | None
    forced: bool
    reason: str | None
    created_at: datetime


class Alias(Resource):
    """A name of the project, and how it came by what it points at; `id` is the name."""

    id: str
    checkpoint_id: str
    promotion: Promotion


class CatalogEntry(Resource):
    """A model, a method or a reward that a spec may name; of a model also what its files say, once they have been read."""

    id: str
    description: str
    family: str | None = None
    resolution: int | None = None
    num_parameters: int | None = None
    problem: str | None = None


class ImageProgress(Resource):
    done: int
    total: int | None
    percent: float | None


class Verification(Resource):
    """Some of an evaluation's images, drawn and scored once more."""

    id: str
    evaluation_id: str
    status: JobStatus
    is_terminal: bool
    error: ResourceError | None
    report: VerificationReport | None
    created_at: datetime
    finished_at: datetime | None


class EvaluationSummary(Resource):
    """Models against each other, without the spec."""

    id: str
    name: str | None
    metadata: dict[str, str]
    status: JobStatus
    is_terminal: bool
    phase: str | None
    attempt: int
    queue: QueuePlace | None
    progress: ImageProgress
    error: ResourceError | None
    spec_sha256: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class Evaluation(EvaluationSummary):
    """Models against each other; `best` is named only if the corrected test says so."""

    spec: dict[str, Any]
    best: str | None
    scores_url: str | None
    verifications: list[Verification]


class Webhook(Resource):
    """An address that events of the project are posted to; `events` None is all of them."""

    id: str
    url: str
    events: list[str] | None
    description: str | None
    enabled: bool
    disabled_because: str | None
    failing_since: datetime | None
    old_secret_until: datetime | None
    created_at: datetime
    updated_at: datetime


class NewWebhook(Webhook):
    """A webhook with its secret, which is shown this once."""

    secret: str


class DeliveryTry(Resource):
    """One request; `status` is None where there was no answer."""

    time: datetime
    status: int | None
    milliseconds: int
    error: str | None
    answer: str


class Delivery(Resource):
    """An event for one webhook, with the last of its tries."""

    id: str
    webhook_id: str
    type: str
    state: str
    attempts: int
    next_try_at: datetime | None
    tries: list[DeliveryTry]
    payload: dict[str, Any]
    created_at: datetime
    ended_at: datetime | None
