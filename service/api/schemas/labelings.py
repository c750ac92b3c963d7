"""Labelings over HTTP: what makes one, its questions, votes, and what comes of them."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from alignment_core.reports import HumanComparison
from alignment_core.spec import Name
from service.api.schemas.base import Entry, Resource, with_example
from service.api.schemas.candidate_examples import CANDIDATES_ID, IMAGE_ID
from service.api.schemas.texts import Text
from service.store.records.candidates import LabelingRecord

LABELING_ID = "lab_01kaf0h2v7x3m5q8r1s4t6w9yz"
Choice = Literal["left", "right", "tie", "both_bad", "skip"]

CREATE_EXAMPLE: dict[str, Any] = {"candidates_id": CANDIDATES_ID, "num_pairs": 200, "repeated": 0.1, "name": "shapes"}


class LabelingRequest(BaseModel):
    """Which pairs people are asked about."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [CREATE_EXAMPLE]})

    candidates_id: Annotated[str, StringConstraints(pattern=r"^cand_[0-9a-z]{26}$")] = Field(
        description="Candidates that have ended; the images that they have are used."
    )
    num_pairs: int = Field(100, ge=1, le=5000, description="At most this many, as many of each prompt as can be.")
    repeated: float = Field(0.1, ge=0, le=1, description="Share of them that each person is asked a second time.")
    seed: int = Field(0, ge=0, lt=2**63, description="Pairs, orders and sides follow from it.")
    between: tuple[Name, Name] | None = Field(
        None, description="Two contenders to compare blind, the base first: pairs then have prompt and seed in common."
    )
    report_of: Annotated[str, StringConstraints(pattern=r"^(job|eval)_[0-9a-z]{26}$")] | None = Field(
        None, description="The job or evaluation whose report tells who won; for `between` alone."
    )
    name: Text | None = Field(None, description="A name for people.")

    @model_validator(mode="after")
    def _compares_what_it_reports(self) -> Self:
        if self.between is not None and self.between[0] == self.between[1]:
            raise ValueError("between: a model cannot be compared with itself")
        if self.report_of is not None and self.between is None:
            raise ValueError("report_of: say between which two models")
        return self


SUMMARY_EXAMPLE: dict[str, Any] = {
    "id": LABELING_ID,
    "object": "labeling",
    "name": "shapes",
    "candidates_id": CANDIDATES_ID,
    "between": None,
    "report_of": None,
    "seed": 0,
    "num_pairs": 200,
    "num_questions": 220,
    "answered": 12,
    "created_at": "2026-11-20T09:30:00Z",
}


class Labeling(Entry):
    """Pairs of candidates that people judge."""

    model_config = with_example(SUMMARY_EXAMPLE)

    object: Literal["labeling"] = "labeling"
    name: str | None
    candidates_id: str
    between: list[str] | None
    report_of: str | None
    seed: int
    num_pairs: int = Field(description="Different ones.")
    num_questions: int = Field(description="Of each person: the pairs and those that are asked again.")
    answered: int = Field(description="How many of them the person who asks has answered, skipped ones among them.")
    created_at: datetime

    @classmethod
    def of(cls, found: LabelingRecord, answered: int) -> "Labeling":
        return cls.model_validate({**found.model_dump(exclude={"project_id"}), "answered": answered})


class Shown(Resource):
    """An image of a question. It does not say what drew it."""

    image_id: str
    image_url: str = Field(description="Where the PNG is; without a host it is on this server.")
    width: int
    height: int


class QuestionProgress(Resource):
    """How far somebody is."""

    annotator: str
    answered: int = Field(description="Skipped ones are among them.")
    total: int
    last: int | None = Field(description="The question that was answered last: what undo takes back.")


class Question(Resource):
    """Which is better?"""

    question: int = Field(description="Its number, by which it is answered; not its place in anybody's order.")
    prompt: str
    left: Shown
    right: Shown


_SIDE: dict[str, Any] = {
    "image_id": IMAGE_ID,
    "image_url": f"/v1/candidates/{CANDIDATES_ID}/images/{IMAGE_ID}.png",
    "width": 32,
    "height": 32,
}
PROGRESS_EXAMPLE: dict[str, Any] = {"annotator": "me", "answered": 12, "total": 220, "last": 41}
NEXT_EXAMPLE: dict[str, Any] = {
    "object": "questions",
    "data": [{"question": 7, "prompt": "a big red circle on the left", "left": _SIDE, "right": _SIDE}],
    "progress": PROGRESS_EXAMPLE,
}


class NextQuestions(Resource):
    """What somebody is asked next, in their own order; nothing once they have answered all."""

    model_config = with_example(NEXT_EXAMPLE)

    object: Literal["questions"] = "questions"
    data: list[Question]
    progress: QuestionProgress


class VoteRequest(BaseModel):
    """What somebody says of a question."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [{"choice": "left"}]})

    choice: Choice


class Vote(Resource):
    """What somebody says of a question, or nothing after it was taken back."""

    model_config = with_example(
        {
            "object": "vote",
            "labeling_id": LABELING_ID,
            "question": 7,
            "choice": "left",
            "progress": PROGRESS_EXAMPLE,
        }
    )

    object: Literal["vote"] = "vote"
    labeling_id: str
    question: int
    choice: Choice | None
    progress: QuestionProgress


class SelfAgreement(Resource):
    """How often somebody says the same of a pair that is asked again."""

    num_pairs: int
    agreed: float | None = Field(description="Share of them.")
    kappa: float | None = Field(description="Cohen's; null where nothing else could have been said.")


class AnnotatorResults(Resource):
    annotator: str
    answered: int
    skipped: int
    itself: SelfAgreement


class PairAgreement(Resource):
    """Of two people, on the pairs that both judged."""

    annotators: list[str]
    num_pairs: int
    agreed: float | None
    kappa: float | None = Field(description="Cohen's.")


RESULTS_EXAMPLE: dict[str, Any] = {
    "object": "labeling_results",
    "labeling_id": LABELING_ID,
    "num_judged_pairs": 150,
    "annotators": [
        {
            "annotator": "me",
            "answered": 160,
            "skipped": 3,
            "itself": {"num_pairs": 14, "agreed": 0.93, "kappa": 0.86},
        }
    ],
    "agreement": [],
    "alpha": None,
    "human": None,
}


class LabelingResults(Resource):
    """Who has judged how much, how far they agree, and who won."""

    model_config = with_example(RESULTS_EXAMPLE)

    object: Literal["labeling_results"] = "labeling_results"
    labeling_id: str
    num_judged_pairs: int = Field(description="Different ones, of which anybody said more than skip.")
    annotators: list[AnnotatorResults]
    agreement: list[PairAgreement]
    alpha: float | None = Field(description="Krippendorff's, nominal, over everybody; null with one person.")
    human: HumanComparison | None = Field(description="Of a blind comparison, once anybody has judged.")


class LabelingDatasetRequest(BaseModel):
    """What data set to make of the votes."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [{"name": "my taste"}]})

    name: Text | None = Field(None, description="A name for people.")
    both_bad: Literal["drop", "tie"] = Field(
        "drop",
        description="What a pair is of which somebody says that both are bad: their vote is left out, or is a tie.",
    )
