"""What the server answers, as far as the client reads it. Fields that a newer server adds are ignored."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

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


class Job(Resource):
    id: str
    name: str | None
    metadata: dict[str, str]
    status: JobStatus
    is_terminal: bool
    phase: str | None
    attempt: int
    progress: Progress
    error: ResourceError | None
    spec: dict[str, Any]
    latest_checkpoint_id: str | None
    created_at: datetime
    finished_at: datetime | None


class Dataset(Resource):
    id: str
    name: str | None
    filename: str
    state: Literal["uploading", "checking", "ready", "failed"]
    size_bytes: int | None
    sha256: str | None
    error: ResourceError | None


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
    size_bytes: int


class Sample(Resource):
    id: str
    step: int
    prompts: list[str]
