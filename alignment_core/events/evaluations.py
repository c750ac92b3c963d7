"""Models against each other."""

from typing import Any, Literal

from pydantic import Field

from alignment_core.events.base import EventBase


class ProofStarted(EventBase):
    """The first event of every attempt at an evaluation: what is really going to be drawn."""

    type: Literal["proof_started"] = "proof_started"
    spec: dict[str, Any] = Field(
        default={}, description="The resolved spec; a server leaves it out: its evaluation has it."
    )
    spec_sha256: str
    num_images: int = Field(description="Of all contenders.")
    num_there: int = Field(description="Of these, what earlier attempts drew.")
    device: str
    card: str
    precision: str = Field(description="`auto` where it is yet to be measured: `precision_chosen` tells it.")
    versions: dict[str, str]


class ContenderLoaded(EventBase):
    """A model of an evaluation is in memory; `contender` is a `reports.ContenderFacts`."""

    type: Literal["contender_loaded"] = "contender_loaded"
    contender: dict[str, Any]


class ImagesScored(EventBase):
    """Some prompts of a contender were drawn and scored, and are kept: no later attempt draws them again."""

    type: Literal["images_scored"] = "images_scored"
    contender: str
    path: str = Field(description="The file that holds them.")
    done: int = Field(description="Images of all contenders that are there.")
    total: int


class ProofCompleted(EventBase):
    """The evaluation. `report` is a `reports.ProofReport`; `scores` is the file with every score."""

    type: Literal["proof_completed"] = "proof_completed"
    path: str
    scores: str
    report: dict[str, Any] = Field(default={}, description="A server leaves it out: its evaluation has it.")


class VerificationCompleted(EventBase):
    """Some images of an evaluation were drawn again. `report` is a `reports.VerificationReport`."""

    type: Literal["verification_completed"] = "verification_completed"
    report: dict[str, Any]
