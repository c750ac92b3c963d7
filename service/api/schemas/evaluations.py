"""An evaluation over HTTP: what creates one, what is shown of it, and of what was drawn of it once more."""

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from alignment_core.reports import VerificationReport
from alignment_core.spec import ProofSpec
from service.api.schemas.base import Entry, RequestBody, with_example
from service.api.schemas.contests import ContestSummary, ContestValidation, shown_contest
from service.api.schemas.evaluation_examples import (
    CREATE_EXAMPLE,
    EVALUATION_EXAMPLE,
    SUMMARY_EXAMPLE,
    VALIDATION_EXAMPLE,
    VERIFICATION_EXAMPLE,
)
from service.api.schemas.rows import JobError, QueuePlace, shown_of
from service.api.schemas.texts import Metadata, NameForPeople
from service.store.records.jobs import JobRecord
from service.store.records.jobs import JobSummary as SummaryRecord
from service.store.states import JobState


class EvaluationRequest(RequestBody):
    """What to compare, and how to find it again."""

    model_config = ConfigDict(json_schema_extra={"examples": [CREATE_EXAMPLE]})

    spec: ProofSpec
    name: NameForPeople = None
    metadata: Metadata = Field(default_factory=dict)


class EvaluationValidation(ContestValidation):
    """What would happen if this evaluation were posted."""

    model_config = with_example(VALIDATION_EXAMPLE)

    valid: bool = Field(description="Whether `POST /v1/evaluations` would take it.")
    resolved_spec: ProofSpec | None = Field(description="As a worker would run it; null when it would not be taken.")


class VerificationRequest(RequestBody):
    """How much of an evaluation to draw again."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"num_prompts": 4}]})

    num_prompts: int = Field(
        4, ge=1, le=1000, description="On how many prompts, all seeds and contenders of each; which, nobody can choose."
    )


class Verification(Entry):
    """Some of an evaluation's images, drawn and scored once more by a worker."""

    model_config = with_example(VERIFICATION_EXAMPLE)

    object: Literal["verification"] = "verification"
    evaluation_id: str
    status: JobState
    is_terminal: bool
    queue: QueuePlace | None = Field(description="Set while `status` is `queued`.")
    error: JobError | None
    report: VerificationReport | None = Field(description="Null until it has succeeded.")
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, row: SummaryRecord, evaluation_id: str, report: dict[str, Any] | None) -> "Verification":
        fields = cls.model_fields.keys() - {"evaluation_id", "report"}
        return cls.model_validate({**shown_of(row, fields), "evaluation_id": evaluation_id, "report": report})


class EvaluationSummary(ContestSummary):
    """Models against each other, without the spec, which may hold thousands of prompts."""

    model_config = with_example(SUMMARY_EXAMPLE)

    object: Literal["evaluation"] = "evaluation"
    attempt: int = Field(description="How often a worker has taken it; none draws again what is there.")
    spec_sha256: str = Field(description="Hash of what its numbers follow from; its report carries it too.")

    @classmethod
    def of(cls, row: SummaryRecord) -> "EvaluationSummary":
        return cls.model_validate(shown_contest(row, cls.model_fields))


class Evaluation(EvaluationSummary):
    """Models against each other."""

    model_config = with_example(EVALUATION_EXAMPLE)

    spec: ProofSpec = Field(
        description="The spec with the anchor written out, and checkpoints of LoRAs as model and LoRA."
    )
    best: str | None = Field(description="As in the report: named only if the corrected test says so.")
    scores_url: str | None = Field(description="Where `scores.parquet` is, once there is one.")
    verifications: list[Verification]

    @classmethod
    def whole(
        cls, row: JobRecord, report: dict[str, Any] | None, verifications: list[Verification], base_url: str
    ) -> "Evaluation":
        composed = {"best", "scores_url", "verifications"}
        scores_url = None if report is None else f"{base_url}/v1/evaluations/{row.id}/scores.parquet"
        return cls.model_validate(
            {
                **shown_contest(row, cls.model_fields.keys() - composed),
                "best": None if report is None else report["best"],
                "scores_url": scores_url,
                "verifications": verifications,
            }
        )
