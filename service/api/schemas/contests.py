"""What is shown of evaluations and candidates alike: models that draw side by side."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from pydantic import Field

from alignment_core.costs.proof import Bytes, ProofMemory
from alignment_core.costs.seconds import Duration
from alignment_core.events import Phase
from service.api.schemas.base import Entry, Resource
from service.api.schemas.rows import JobError, QueuePlace, shown_of
from service.errors import FieldProblem
from service.store.records.jobs import JobSummary as SummaryRecord
from service.store.states import JobState


class EvaluationEstimate(Resource):
    """What an evaluation will take; null until the files of its models have been read."""

    num_images: int | None = Field(description="Of all contenders; null where the prompts' number is not known.")
    memory: ProofMemory | None = Field(None, description="GiB of each process, with the contender that needs most.")
    duration: Duration | None = Field(
        None,
        description="Seconds from a worker's claim on, between bounds: loading, and `evaluating`, which draws and judges.",
    )
    stored: Bytes | None = Field(None, description="Bytes of scores and pictures.")


class ContestValidation(Resource):
    """What would happen if the spec were posted; each kind says where to, and which spec that is."""

    valid: bool
    errors: list[FieldProblem]
    warnings: list[str] = Field(description="What is allowed but may not be meant, or is not known yet.")
    estimate: EvaluationEstimate | None


class ImageProgress(Resource):
    """How far drawing is."""

    done: int = Field(description="Images of all contenders that are drawn, scored and kept.")
    total: int | None = Field(description="Images of the whole evaluation, when their number is known.")
    percent: float | None = Field(description="From 0 to 100.")


class ContestSummary(Entry):
    """A contest without its spec; each kind says what it is."""

    name: str | None
    metadata: dict[str, str]
    status: JobState
    is_terminal: bool = Field(description="Whether nothing more will happen by itself: succeeded, failed or cancelled.")
    phase: Phase | None = Field(description="What the process does just now.")
    attempt: int
    queue: QueuePlace | None = Field(description="Set while `status` is `queued`.")
    progress: ImageProgress
    error: JobError | None = Field(description="Set when `status` is `failed`, or `paused` for want of something.")
    spec_sha256: str
    created_at: datetime
    queued_at: datetime | None
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def shown_contest(row: SummaryRecord, fields: Collection[str]) -> dict[str, Any]:
    """The fields of a stored contest as they are shown, its progress in images."""
    progress = row.progress
    told = ImageProgress(done=progress.step, total=progress.total, percent=progress.percent)
    return {**shown_of(row, set(fields) - {"progress"}), "progress": told}
