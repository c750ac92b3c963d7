"""An evaluation over HTTP: what creates one, what is shown of it, and of what was drawn of it once more."""

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from alignment_core.costs.proof import Bytes, ProofMemory
from alignment_core.costs.seconds import Duration
from alignment_core.events import Phase
from alignment_core.reports import ProofReport, VerificationReport
from alignment_core.spec import ProofSpec
from service.api.schemas.base import Entry, RequestBody, Resource, with_example
from service.api.schemas.jobs import JobError, MetadataKey, MetadataValue, QueuePlace, Text, shown_of
from service.api.schemas.runs import REPORT_EXAMPLE
from service.errors import FieldProblem
from service.store.records import JobRecord
from service.store.records import JobSummary as SummaryRecord
from service.store.states import JobState

EVALUATION_ID, VERIFICATION_ID = "eval_01kaf0h2v7x3m5q8r1s4t6w9yz", "vfy_01kaf0k4x9z5p7s0t3v6w8yabc"

SPEC_EXAMPLE: dict[str, Any] = {
    "contenders": [
        {"name": "base", "model": "shapes"},
        {"name": "aligned", "model": "ckpt_01kaf0n5b8d1f4h7k0m3p6r9t2"},
        {"name": "styled", "model": "shapes", "lora": "wts_01kaf0f6a2c4e6g8j0m2p4r6t8", "strength": 0.8},
    ],
    "prompts": ["a big red circle on the left", "a small blue star on the right"],
    "seeds_per_prompt": 2,
    "rewards": ["colorfulness"],
    "sampling": {"num_inference_steps": 20, "guidance_scale": 5.0},
}
CREATE_EXAMPLE: dict[str, Any] = {"spec": SPEC_EXAMPLE, "name": "three of them", "metadata": {"team": "design"}}
RESOLVED_EXAMPLE = ProofSpec.model_validate(SPEC_EXAMPLE).resolved()
SPEC_SHA256 = RESOLVED_EXAMPLE.sha256()


class EvaluationRequest(RequestBody):
    """What to compare, and how to find it again."""

    model_config = ConfigDict(json_schema_extra={"examples": [CREATE_EXAMPLE]})

    spec: ProofSpec
    name: Text | None = Field(None, description="A name for people.")
    metadata: dict[MetadataKey, MetadataValue] = Field(
        default_factory=dict, max_length=16, description="Up to 16 pairs to filter lists by: `?metadata[team]=design`."
    )


class EvaluationEstimate(Resource):
    """What an evaluation will take; null until the files of its models have been read."""

    num_images: int | None = Field(description="Of all contenders; null where the prompts' number is not known.")
    memory: ProofMemory | None = Field(None, description="GiB of each process, with the contender that needs most.")
    duration: Duration | None = Field(
        None,
        description="Seconds from a worker's claim on, between bounds: loading, and `evaluating`, which draws and judges.",
    )
    stored: Bytes | None = Field(None, description="Bytes of scores and pictures.")


VALIDATION_EXAMPLE: dict[str, Any] = {
    "valid": True,
    "errors": [],
    "warnings": [],
    "resolved_spec": RESOLVED_EXAMPLE.model_dump(mode="json"),
    "estimate": {"num_images": 12, "memory": None, "duration": None, "stored": None},
}


class EvaluationValidation(Resource):
    """What would happen if this evaluation were posted."""

    model_config = with_example(VALIDATION_EXAMPLE)

    valid: bool = Field(description="Whether `POST /v1/evaluations` would take it.")
    errors: list[FieldProblem]
    warnings: list[str] = Field(description="What is allowed but may not be meant, or is not known yet.")
    resolved_spec: ProofSpec | None = Field(description="As a worker would run it; null when it would not be taken.")
    estimate: EvaluationEstimate | None


class VerificationRequest(RequestBody):
    """How much of an evaluation to draw again."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"num_prompts": 4}]})

    num_prompts: int = Field(
        4, ge=1, le=1000, description="On how many prompts, all seeds and contenders of each; which, nobody can choose."
    )


class ImageProgress(Resource):
    """How far drawing is."""

    done: int = Field(description="Images of all contenders that are drawn, scored and kept.")
    total: int | None = Field(description="Images of the whole evaluation, when their number is known.")
    percent: float | None = Field(description="From 0 to 100.")


VERIFICATION_EXAMPLE: dict[str, Any] = {
    "id": VERIFICATION_ID,
    "object": "verification",
    "evaluation_id": EVALUATION_ID,
    "status": "succeeded",
    "is_terminal": True,
    "queue": None,
    "error": None,
    "report": {
        "spec_sha256": SPEC_SHA256,
        "scores_sha256": "5f" * 32,
        "outcome": "identical",
        "tolerance": 0.05,
        "num_images": 12,
        "num_equal_images": 12,
        "scores": [{"name": "colorfulness", "num_equal": 12, "largest": 0.0}],
        "changed": [],
        "prompts": ["a big red circle on the left", "a small blue star on the right"],
        "precision": "fp32",
        "card": "AMD EPYC 9575F",
        "cards_then": ["AMD EPYC 9575F"],
        "versions": {"attune": "0.1.0"},
        "versions_then": {"attune": "0.1.0"},
        "elapsed_seconds": 4.1,
        "written_at": "2026-11-20T09:18:02Z",
    },
    "created_at": "2026-11-20T09:17:50Z",
    "finished_at": "2026-11-20T09:18:02Z",
}


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


SUMMARY_EXAMPLE: dict[str, Any] = {
    "id": EVALUATION_ID,
    "object": "evaluation",
    "name": "three of them",
    "metadata": {"team": "design"},
    "status": "running",
    "is_terminal": False,
    "phase": "sampling",
    "attempt": 1,
    "queue": None,
    "progress": {"done": 6, "total": 12, "percent": 50.0},
    "error": None,
    "spec_sha256": SPEC_SHA256,
    "created_at": "2026-11-20T09:15:00Z",
    "queued_at": "2026-11-20T09:15:00Z",
    "updated_at": "2026-11-20T09:15:31Z",
    "started_at": "2026-11-20T09:15:02Z",
    "finished_at": None,
}
EVALUATION_EXAMPLE: dict[str, Any] = {
    **SUMMARY_EXAMPLE,
    "spec": RESOLVED_EXAMPLE.model_dump(mode="json"),
    "best": None,
    "scores_url": None,
    "verifications": [],
}


class EvaluationSummary(Entry):
    """Models against each other, without the spec, which may hold thousands of prompts."""

    model_config = with_example(SUMMARY_EXAMPLE)

    object: Literal["evaluation"] = "evaluation"
    name: str | None
    metadata: dict[str, str]
    status: JobState
    is_terminal: bool = Field(description="Whether nothing more will happen by itself: succeeded, failed or cancelled.")
    phase: Phase | None = Field(description="What the process does just now.")
    attempt: int = Field(description="How often a worker has taken it; none draws again what is there.")
    queue: QueuePlace | None = Field(description="Set while `status` is `queued`.")
    progress: ImageProgress
    error: JobError | None = Field(description="Set when `status` is `failed`, or `paused` for want of something.")
    spec_sha256: str = Field(description="Hash of what its numbers follow from; its report carries it too.")
    created_at: datetime
    queued_at: datetime | None
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, row: SummaryRecord) -> "EvaluationSummary":
        return cls.model_validate(_shown(row, cls.model_fields.keys()))


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
                **_shown(row, cls.model_fields.keys() - composed),
                "best": None if report is None else report["best"],
                "scores_url": scores_url,
                "verifications": verifications,
            }
        )


def _shown(row: SummaryRecord, fields: Any) -> dict[str, Any]:
    progress = row.progress
    told = ImageProgress(done=progress.step, total=progress.total, percent=progress.percent)
    return {**shown_of(row, set(fields) - {"progress"}), "progress": told}


PROOF_REPORT_EXAMPLE: dict[str, Any] = ProofReport.model_validate(
    {
        "subject_id": EVALUATION_ID,
        "name": "three of them",
        "anchor": "base",
        "best": "aligned",
        "contenders": [
            {
                "name": name,
                "model": "shapes",
                "denoiser": None,
                "lora": lora,
                "strength": None if lora is None else 1.0,
                "sha256": sha * 32,
                "base_model_sha256": "cd" * 32,
                "denoiser_sha256": None,
                "lora_sha256": None if lora is None else "ef" * 32,
                "family": "sd",
                "resolution": 32,
                "prediction_type": "epsilon",
                "space_sha256": "1a" * 32,
            }
            for name, lora, sha in (("base", None, "aa"), ("aligned", "ckpt_01kaf0n5b8d1f4h7k0m3p6r9t2", "bb"))
        ],
        "judges": [{"name": "colorfulness", "sha256": "dc" * 32}],
        "comparisons": [
            {
                **REPORT_EXAMPLE,
                "base": {"label": "base", "step": None, "spec_sha256": None},
                "policy": {"label": "aligned", "step": None, "spec_sha256": None},
                "interval_method": "bca",
                "images": [],
            }
        ],
        "num_prompts": 1,
        "seeds_per_prompt": 2,
        "num_images": 4,
        "prompts_sha256": "2b" * 32,
        "scores_sha256": "5f" * 32,
        "spec": RESOLVED_EXAMPLE.model_dump(mode="json", exclude={"prompts"}),
        "spec_sha256": SPEC_SHA256,
        "seed": 0,
        "confidence": 0.95,
        "bootstrap_resamples": 10000,
        "interval_method": "bca",
        "precision": "fp32",
        "cards": ["AMD EPYC 9575F"],
        "versions": {"attune": "0.1.0"},
        "warnings": [],
        "elapsed_seconds": 14.2,
        "written_at": "2026-11-20T09:16:40Z",
    }
).model_dump(mode="json")
