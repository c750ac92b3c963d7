"""Images that are drawn for people to judge."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from alignment_core.events.base import EventBase


class CandidatesStarted(EventBase):
    """The first event of every attempt at drawing candidates: what is really going to be drawn."""

    type: Literal["candidates_started"] = "candidates_started"
    spec: dict[str, Any] = Field(
        default={}, description="The resolved spec; a server leaves it out: its candidates have it."
    )
    spec_sha256: str
    num_images: int = Field(description="Of all contenders.")
    num_there: int = Field(description="Of these, what earlier attempts drew.")
    device: str
    card: str
    precision: str = Field(description="`auto` where it is yet to be measured: `precision_chosen` tells it.")
    versions: dict[str, str]


class DrawnImage(BaseModel):
    """An image of a contender, as a PNG file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(description="The file that holds it.")
    position: int = Field(description="Place of its prompt in the list, from 0.")
    number: int = Field(description="Place of its seed among those of the prompt, from 0.")
    prompt: str
    seed: int
    width: int
    height: int
    pixels_sha256: str = Field(description="Of height, width and RGB bytes, whatever the file.")
    fingerprint: str = Field(
        description="Hash of all that it follows from: the model's files, prompt, seed, settings, versions."
    )
    reused: bool = Field(default=False, description="It had been drawn before, and was not drawn again.")


class CandidatesDrawn(EventBase):
    """Some images of a contender are there, and are kept: no later attempt draws them again."""

    type: Literal["candidates_drawn"] = "candidates_drawn"
    contender: str
    recipe: dict[str, Any] = Field(
        description="A `reports.ImageRecipe`: what they were made with, but prompt and seed."
    )
    images: list[DrawnImage] = Field(default=[], description="A server leaves them out: its candidates have them.")
    done: int = Field(description="Images of all contenders that are there.")
    total: int
