"""Models against each other."""

from datetime import datetime
from typing import Any

from alignment_core.reports import VerificationReport
from attune.resources.base import Resource, ResourceError
from attune.resources.jobs import JobStatus, QueuePlace, Validation


class EvaluationValidation(Validation):
    """The same of an evaluation; its estimate has `num_images`, `memory`, `duration` and `stored`."""


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
