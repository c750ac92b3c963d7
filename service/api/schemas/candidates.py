"""Candidates over HTTP: what has them drawn, what is shown of them, and each image with all that it follows from."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from alignment_core.events import Phase
from alignment_core.reports import ImageRecipe
from alignment_core.spec import CandidatesSpec, ContenderSpec
from alignment_core.spec.candidates import ImageSeed
from alignment_core.spec.proof import SamplingSpec
from service.api.schemas.base import Entry, Resource, with_example
from service.api.schemas.evaluations import EvaluationEstimate, ImageProgress
from service.api.schemas.jobs import JobError, MetadataKey, MetadataValue, QueuePlace, Text, shown_of
from service.errors import FieldProblem
from service.store.records import CandidateImageRecord, JobRecord
from service.store.records import JobSummary as SummaryRecord
from service.store.states import JobState

CANDIDATES_ID, IMAGE_ID = "cand_01kaf0h2v7x3m5q8r1s4t6w9yz", "img_01kaf0nd3f5h7k9m1p3r5t7v9x"

SPEC_EXAMPLE: dict[str, Any] = {
    "contenders": [{"name": "base", "model": "shapes"}],
    "prompts": ["a big red circle on the left", "a small blue star on the right"],
    "seeds_per_prompt": 4,
    "sampling": {"num_inference_steps": 20, "guidance_scale": 5.0},
}
CREATE_EXAMPLE: dict[str, Any] = {"spec": SPEC_EXAMPLE, "name": "shapes to judge", "metadata": {"team": "design"}}
RESOLVED_EXAMPLE = CandidatesSpec.model_validate(SPEC_EXAMPLE).resolved()


class CandidatesRequest(BaseModel):
    """What to draw, and how to find it again."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [CREATE_EXAMPLE]})

    spec: CandidatesSpec
    name: Text | None = Field(None, description="A name for people.")
    metadata: dict[MetadataKey, MetadataValue] = Field(
        default_factory=dict, max_length=16, description="Up to 16 pairs to filter lists by: `?metadata[team]=design`."
    )


PLAYGROUND_EXAMPLE: dict[str, Any] = {
    "prompt": "a big red circle on the left",
    "seed": 7,
    "contenders": [
        {"name": "base", "model": "shapes"},
        {"name": "aligned", "model": "ckpt_01kaf0n5b8d1f4h7k0m3p6r9t2"},
    ],
}


class PlaygroundRequest(BaseModel):
    """One prompt and one seed, drawn at once by one or two models."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [PLAYGROUND_EXAMPLE]})

    prompt: str = Field(min_length=1, max_length=2000)
    seed: ImageSeed = 0
    contenders: tuple[ContenderSpec, ...] = Field(min_length=1, max_length=2)
    sampling: SamplingSpec = SamplingSpec()


VALIDATION_EXAMPLE: dict[str, Any] = {
    "valid": True,
    "errors": [],
    "warnings": [],
    "resolved_spec": RESOLVED_EXAMPLE.model_dump(mode="json"),
    "estimate": {"num_images": 8, "memory": None, "duration": None, "stored": None},
}


class CandidatesValidation(Resource):
    """What would happen if these candidates were posted."""

    model_config = with_example(VALIDATION_EXAMPLE)

    valid: bool = Field(description="Whether `POST /v1/candidates` would take it.")
    errors: list[FieldProblem]
    warnings: list[str] = Field(description="What is allowed but may not be meant, or is not known yet.")
    resolved_spec: CandidatesSpec | None = Field(
        description="As a worker would run it; null when it would not be taken."
    )
    estimate: EvaluationEstimate | None


SUMMARY_EXAMPLE: dict[str, Any] = {
    "id": CANDIDATES_ID,
    "object": "candidates",
    "name": "shapes to judge",
    "metadata": {"team": "design"},
    "status": "running",
    "is_terminal": False,
    "phase": "sampling",
    "attempt": 1,
    "queue": None,
    "progress": {"done": 4, "total": 8, "percent": 50.0},
    "error": None,
    "spec_sha256": RESOLVED_EXAMPLE.sha256(),
    "created_at": "2026-11-20T09:15:00Z",
    "queued_at": "2026-11-20T09:15:00Z",
    "updated_at": "2026-11-20T09:15:31Z",
    "started_at": "2026-11-20T09:15:02Z",
    "finished_at": None,
}


class CandidatesSummary(Entry):
    """Images that are drawn to be judged, without the spec, which may hold thousands of prompts."""

    model_config = with_example(SUMMARY_EXAMPLE)

    object: Literal["candidates"] = "candidates"
    name: str | None
    metadata: dict[str, str]
    status: JobState
    is_terminal: bool = Field(description="Whether nothing more will happen by itself: succeeded, failed or cancelled.")
    phase: Phase | None = Field(description="What the process does just now.")
    attempt: int = Field(description="How often a worker has taken them; none draws again what is there.")
    queue: QueuePlace | None = Field(description="Set while `status` is `queued`.")
    progress: ImageProgress
    error: JobError | None = Field(description="Set when `status` is `failed`, or `paused` for want of something.")
    spec_sha256: str = Field(description="Hash of what the images follow from.")
    created_at: datetime
    queued_at: datetime | None
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, row: SummaryRecord) -> "CandidatesSummary":
        return cls.model_validate(_shown(row, cls.model_fields.keys()))


class Candidates(CandidatesSummary):
    """Images that are drawn to be judged."""

    model_config = with_example({**SUMMARY_EXAMPLE, "spec": RESOLVED_EXAMPLE.model_dump(mode="json")})

    spec: CandidatesSpec = Field(
        description="The spec with `seeds_per_prompt` written out, and checkpoints of LoRAs as model and LoRA."
    )

    @classmethod
    def whole(cls, row: JobRecord) -> "Candidates":
        return cls.model_validate(_shown(row, cls.model_fields.keys()))


def _shown(row: SummaryRecord, fields: Any) -> dict[str, Any]:
    progress = row.progress
    told = ImageProgress(done=progress.step, total=progress.total, percent=progress.percent)
    return {**shown_of(row, set(fields) - {"progress"}), "progress": told}


RECIPE_EXAMPLE: dict[str, Any] = {
    "contender": {
        "name": "base",
        "model": "shapes",
        "denoiser": None,
        "lora": None,
        "strength": None,
        "sha256": "aa" * 32,
        "base_model_sha256": "cd" * 32,
        "denoiser_sha256": None,
        "lora_sha256": None,
        "family": "sd",
        "resolution": 32,
        "prediction_type": "epsilon",
        "space_sha256": "1a" * 32,
    },
    "noise": {"distribution": "standard_normal", "generator": "torch_cpu", "dtype": "float32", "shape": [4, 8, 8]},
    "num_inference_steps": 20,
    "guidance_scale": 5.0,
    "precision": "fp32",
    "card": "AMD EPYC 9575F",
    "versions": {"attune": "0.1.0"},
}
IMAGE_EXAMPLE: dict[str, Any] = {
    "id": IMAGE_ID,
    "object": "candidate_image",
    "candidates_id": CANDIDATES_ID,
    "contender": "base",
    "position": 0,
    "number": 1,
    "prompt": "a big red circle on the left",
    "seed": 2899170623,
    "attempt": 1,
    "width": 32,
    "height": 32,
    "pixels_sha256": "7e" * 32,
    "reused": False,
    "size_bytes": 1480,
    "sha256": "5f" * 32,
    "recipe": RECIPE_EXAMPLE,
    "image_url": f"/v1/candidates/{CANDIDATES_ID}/images/{IMAGE_ID}.png",
    "created_at": "2026-11-20T09:15:20Z",
}


class CandidateImage(Entry):
    """An image, and all that it follows from."""

    model_config = with_example(IMAGE_EXAMPLE)

    object: Literal["candidate_image"] = "candidate_image"
    candidates_id: str
    contender: str = Field(description="Name of the model that drew it.")
    position: int = Field(description="Place of its prompt in the list, from 0.")
    number: int = Field(description="Place of its seed among those of the prompt, from 0.")
    prompt: str
    seed: int = Field(description="Of its starting noise, which `recipe.noise` says how to make.")
    attempt: int
    width: int
    height: int
    pixels_sha256: str = Field(description="Of height, width and RGB bytes, whatever the file.")
    reused: bool = Field(description="The project had the same image already: it was copied, not drawn.")
    size_bytes: int
    sha256: str
    recipe: ImageRecipe = Field(description="The model's files, starting noise, settings, precision and versions.")
    image_url: str = Field(description="Where the PNG is; without a host it is on this server.")
    created_at: datetime

    @classmethod
    def of(cls, image: CandidateImageRecord, recipe: dict[str, Any], base_url: str) -> "CandidateImage":
        composed = {"candidates_id", "recipe", "image_url"}
        return cls.model_validate(
            {
                **image.model_dump(include=cls.model_fields.keys() - composed),
                "candidates_id": image.job_id,
                "recipe": recipe,
                "image_url": image_url_of(base_url, image.job_id, image.id),
            }
        )


def image_url_of(base_url: str, candidates_id: str, image_id: str) -> str:
    return f"{base_url}/v1/candidates/{candidates_id}/images/{image_id}.png"
