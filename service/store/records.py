"""Records: what the store's functions hand out. Frozen, detached from the database, safe to keep."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from alignment_core.errors import Category
from alignment_core.events import Action, SampleGrid
from alignment_core.model_files import ModelReport
from alignment_core.prompt_files import PromptsReport
from alignment_core.spec import ColumnMapping
from alignment_core.spec.exports import ExportFormat
from alignment_core.spec.sources import OnBadRow
from service.store.states import TERMINAL, JobState

T = TypeVar("T")

ExportState = Literal["queued", "running", "ready", "failed"]
DatasetState = Literal["uploading", "checking", "ready", "failed"]
UploadKind = Literal["data", "lora"]  # preference data, or weights to start from
UploadPurpose = Literal["dataset", "weights", "prompt_set"]  # what a file is to become
UploadState = Literal["receiving", "finishing", "finished"]
Outcome = Literal["done", "refused", "failed"]
Scope = Literal["read", "submit", "admin"]  # what a key may; each may what those before it may
ActionState = Literal["waiting", "done", "refused", "unanswered"]
DeliveryState = Literal["pending", "delivered", "failed"]
DisabledBecause = Literal["asked", "gone", "failing"]  # by its owner; by a 410; after days without a good answer
PushState = Literal["queued", "running", "pushed", "failed"]
PauseKeeps = Literal["last_step", "last_checkpoint"]
ForkMode = Literal["resume", "warm_start"]
ForkReference = Literal["base", "checkpoint"]


@dataclass(frozen=True)
class Slice(Generic[T]):
    """A slice of a list, newest first unless said otherwise."""

    data: tuple[T, ...]
    has_more: bool


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True, extra="forbid")


class CandidateImageRecord(Record):
    """An image of a contender; `position` is the place of its prompt, `number` that of its seed among those of the prompt."""

    id: str
    job_id: str
    project_id: str
    contender: str
    position: int
    number: int
    prompt: str
    seed: int
    attempt: int
    width: int
    height: int
    pixels_sha256: str
    fingerprint: str
    drawn_alike: str
    reused: bool
    size_bytes: int
    sha256: str
    object_key: str
    created_at: datetime

    @property
    def file(self) -> "StoredFile":
        """Where it is, under the name that its fingerprint gives it."""
        return StoredFile(
            path=f"{self.fingerprint}.png", size_bytes=self.size_bytes, sha256=self.sha256, object_key=self.object_key
        )


class LabelingRecord(Record):
    """Pairs of candidates that people judge."""

    id: str
    project_id: str
    name: str | None
    candidates_id: str
    between: list[str] | None
    report_of: str | None
    seed: int
    num_pairs: int
    num_questions: int
    created_at: datetime


class VoteRecord(Record):
    """What somebody said last of a question."""

    labeling_id: str
    annotator: str
    number: int
    project_id: str
    choice: Literal["first", "second", "tie", "both_bad", "skip"]
    voted_at: datetime


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


class JobError(Record):
    """Why a job or a dataset failed: `user` can mend it, `system` is ours, `capacity` passes."""

    code: str
    message: str
    category: Category
    retryable: bool = False
    hint: str | None = None


class CardRecord(Record):
    """What a worker computes on: a GPU by its name, or the machine's processor."""

    name: str
    device: Literal["cuda", "cpu"]
    memory_bytes: int


class KnownModelRecord(Record):
    """What the files of a model say, once a worker has read them, or why none could."""

    id: str
    source: dict[str, Any]
    report: ModelReport | None
    reader: str | None
    error: str | None
    asked_at: datetime
    tried_at: datetime | None


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


class StoredFile(Record):
    """A file in the object store, under the name `path` that its owner knows it by."""

    path: str
    size_bytes: int
    sha256: str
    object_key: str
    crc32: int | None = None


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


class DatasetRecord(Record):
    id: str
    project_id: str
    name: str | None
    filename: str
    kind: UploadKind = "data"
    state: DatasetState
    size_bytes: int | None
    encoded_bytes: int = 0
    browsing_bytes: int = 0
    browsing_key: str | None = None
    sha256: str | None
    object_key: str | None
    columns: ColumnMapping | None = None
    on_bad_row: OnBadRow = "fail"
    format: str | None
    report: dict[str, Any] | None
    error: JobError | None
    provenance: dict[str, Any] | None = None
    attempt: int
    created_at: datetime
    updated_at: datetime


class Browsing(Record):
    """The object with the rows and thumbnails of a data set (`alignment_core/browsing.py`)."""

    object_key: str
    size_bytes: int


class DatasetClaim(Record):
    dataset: DatasetRecord
    attempt: int
    traceparent: str | None = None  # of what asked for it, where that was traced


class PromptSetRecord(Record):
    """Uploaded prompts; `sha256` is theirs in whatever form they came, `file_sha256` that of the file in the store."""

    id: str
    project_id: str
    name: str | None
    filename: str
    num_prompts: int
    sha256: str
    report: PromptsReport
    size_bytes: int
    file_sha256: str
    object_key: str
    created_at: datetime


class UploadRecord(Record):
    """A file that arrives piece by piece; `said` is what its owner says of it, `resource_id` what it becomes or has become."""

    id: str
    project_id: str
    purpose: UploadPurpose
    filename: str
    size_bytes: int
    sha256: str | None
    said: dict[str, Any]
    state: UploadState
    received_bytes: int
    num_pieces: int
    attempt: int
    resource_id: str | None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime


class Proof(Record):
    """What a report says of its primary reward, as it was when a checkpoint was promoted."""

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
    evaluation_id: str | None = None  # whose report it is, where it is not the job's own
    contender: str | None = None
    anchor: str | None = None


class PromotionRecord(Record):
    id: str
    project_id: str
    alias: str
    checkpoint_id: str | None
    job_id: str | None
    step: int | None
    previous_checkpoint_id: str | None
    proof: Proof | None
    forced: bool
    reason: str | None
    created_at: datetime


class AliasRecord(Record):
    """A name, and how it came by what it points at."""

    name: str
    promotion: PromotionRecord


class ProjectRecord(Record):
    id: str
    name: str
    created_at: datetime


class ApiKeyRecord(Record):
    """An API key without its secret, which nobody can read again."""

    id: str
    project_id: str
    name: str
    prefix: str
    scope: Scope
    rotated_from_id: str | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class WebhookRecord(Record):
    """An address that events are posted to, without its secret, which nobody can read again."""

    id: str
    project_id: str
    url: str
    description: str | None
    event_types: list[str] | None
    enabled: bool
    disabled_because: DisabledBecause | None
    old_secret_until: datetime | None
    failing_since: datetime | None
    created_at: datetime
    updated_at: datetime


class TryRecord(Record):
    """One request of a delivery: `status` is null where there was no answer, and `error` says why."""

    time: datetime
    status: int | None
    milliseconds: int
    error: str | None
    answer: str


class DeliveryRecord(Record):
    id: str
    webhook_id: str
    project_id: str
    type: str
    body: str
    state: DeliveryState
    attempt: int
    tries: list[TryRecord]
    due_at: datetime | None
    created_at: datetime
    ended_at: datetime | None


class DeliveryClaim(Record):
    """A delivery to send now, and what it takes: the secrets are sealed, the newest first. `attempt` fences what is recorded."""

    id: str
    webhook_id: str
    attempt: int
    url: str
    body: str
    secrets: tuple[str, ...]
    project_id: str
    created_at: datetime
    traceparent: str | None = None  # of what asked for it, where that was traced


class SessionRecord(Record):
    """A browser that showed a key; its token is nowhere but in the browser."""

    id: str
    project_id: str
    key_id: str
    remote: str | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime


class AuditRecord(Record):
    """Something that was done, or refused, in a project. `key_id` is null where no key was asked for."""

    id: str
    project_id: str
    time: datetime
    key_id: str | None
    remote: str | None
    action: str
    object_ids: list[str]
    outcome: Outcome
    status: int | None
    request_id: str | None
