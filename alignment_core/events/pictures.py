"""Pictures of base and policy, and where each image stands in them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from alignment_core.events.base import EventBase


class PlaceInPicture(BaseModel):
    """The upper left corner of an image in a picture of many, in pixels from that of the picture."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    x: int
    y: int


class ComparedImages(BaseModel):
    """Two images in a picture: base and policy, of one prompt from one seed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: int = Field(description="Place of its prompt in the list, from 0.")
    seed: int = Field(description="Of the noise that both began from.")
    base: PlaceInPicture
    policy: PlaceInPicture


class SampleGrid(BaseModel):
    """Where each image stands in a picture, so that two of them can be laid over each other. All sizes are in pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tile_width: int = Field(description="Of each image, in the picture.")
    tile_height: int
    image_width: int = Field(
        description="Of what the models drew: a larger tile shows it enlarged, a smaller one reduced."
    )
    image_height: int
    tiles: list[ComparedImages]


class SamplesDrawn(EventBase):
    """Images to look at: base and policy, same prompts, same seeds."""

    type: Literal["samples_drawn"] = "samples_drawn"
    step: int
    path: str = Field(description="PNG file.")
    prompts: list[str]
    grid: SampleGrid | None = Field(
        default=None, description="Where each image stands; runs of older versions did not say it."
    )
