"""The playground over HTTP: one prompt that one or two models draw at once, and whether this server has one."""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from alignment_core.spec import ContenderSpec
from alignment_core.spec.candidates import ImageSeed
from alignment_core.spec.proof import SamplingSpec
from alignment_core.spec.sources import Prompt
from service.api.schemas.base import RequestBody, Resource, with_example

DRAW_EXAMPLE: dict[str, Any] = {
    "prompt": "a big red circle on the left",
    "seed": 7,
    "contenders": [
        {"name": "base", "model": "shapes"},
        {"name": "aligned", "model": "ckpt_01kaf0n5b8d1f4h7k0m3p6r9t2"},
    ],
}
PLAYGROUND_EXAMPLE: dict[str, Any] = {"object": "playground", "is_on": True, "max_run_seconds": 120.0}


class PlaygroundRequest(RequestBody):
    """One prompt and one seed, drawn at once by one or two models."""

    model_config = ConfigDict(json_schema_extra={"examples": [DRAW_EXAMPLE]})

    prompt: Prompt = Field(min_length=1)
    seed: ImageSeed = 0
    contenders: tuple[ContenderSpec, ...] = Field(min_length=1, max_length=2)
    sampling: SamplingSpec = SamplingSpec()


class Playground(Resource):
    """What this server's operator says of the playground."""

    model_config = with_example(PLAYGROUND_EXAMPLE)

    object: Literal["playground"] = "playground"
    is_on: bool = Field(
        description="Whether `POST /v1/playground` draws; `ATTUNE_PLAYGROUND` says it, or that no keys are required."
    )
    max_run_seconds: float = Field(
        description="An attempt at a drawing fails after the batch in which so many seconds are over."
    )
