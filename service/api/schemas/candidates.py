"""Candidates over HTTP: what has them drawn, what is shown of them, and each image with all that it follows from."""

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from alignment_core.reports import ImageRecipe
from alignment_core.spec import CandidatesSpec
from service.api.schemas.base import Entry, RequestBody, with_example
from service.api.schemas.candidate_examples import (
    CREATE_EXAMPLE,
    IMAGE_EXAMPLE,
    RESOLVED_EXAMPLE,
    SUMMARY_EXAMPLE,
    VALIDATION_EXAMPLE,
)
from service.api.schemas.contests import ContestSummary, ContestValidation, shown_contest
from service.api.schemas.texts import Metadata, NameForPeople
from service.store.records.candidates import CandidateImageRecord
from service.store.records.jobs import JobRecord
from service.store.records.jobs import JobSummary as SummaryRecord


class CandidatesRequest(RequestBody):
    """What to draw, and how to find it again."""

    model_config = ConfigDict(json_schema_extra={"examples": [CREATE_EXAMPLE]})

    spec: CandidatesSpec
    name: NameForPeople = None
    metadata: Metadata = Field(default_factory=dict)


class CandidatesValidation(ContestValidation):
    """What would happen if these candidates were posted."""

    model_config = with_example(VALIDATION_EXAMPLE)

    valid: bool = Field(description="Whether `POST /v1/candidates` would take it.")
    resolved_spec: CandidatesSpec | None = Field(
        description="As a worker would run it; null when it would not be taken."
    )


class CandidatesSummary(ContestSummary):
    """Images that are drawn to be judged, without the spec, which may hold thousands of prompts."""

    model_config = with_example(SUMMARY_EXAMPLE)

    object: Literal["candidates"] = "candidates"
    attempt: int = Field(description="How often a worker has taken them; none draws again what is there.")
    spec_sha256: str = Field(description="Hash of what the images follow from.")

    @classmethod
    def of(cls, row: SummaryRecord) -> "CandidatesSummary":
        return cls.model_validate(shown_contest(row, cls.model_fields))


class Candidates(CandidatesSummary):
    """Images that are drawn to be judged."""

    model_config = with_example({**SUMMARY_EXAMPLE, "spec": RESOLVED_EXAMPLE.model_dump(mode="json")})

    spec: CandidatesSpec = Field(
        description="The spec with `seeds_per_prompt` written out, and checkpoints of LoRAs as model and LoRA."
    )

    @classmethod
    def whole(cls, row: JobRecord) -> "Candidates":
        return cls.model_validate(shown_contest(row, cls.model_fields))


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
