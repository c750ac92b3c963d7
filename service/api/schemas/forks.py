"""A fork over HTTP: what is asked for, and a job's ancestors and children."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from alignment_core.spec import JobSpec
from service.api.schemas.base import RequestBody, Resource, with_example
from service.api.schemas.job_examples import JOB_ID
from service.api.schemas.jobs import Parent
from service.api.schemas.texts import MetadataKey, MetadataValue, Text
from service.store.records.jobs import RelativeRecord
from service.store.states import JobState

RESUME_EXAMPLE: dict[str, Any] = {"mode": "resume", "steps": 800, "name": "twice as long"}
WARM_EXAMPLE: dict[str, Any] = {"mode": "warm_start", "reference": "base", "name": "another beta"}


class _Fork(RequestBody):
    name: Text | None = Field(None, description="A name for people.")
    metadata: dict[MetadataKey, MetadataValue] = Field(default_factory=dict, max_length=16, description="As of a job.")


class ResumeFork(_Fork):
    """Go on with the same spec and more steps, with weights, optimiser, reference and all that adapts as they were."""

    model_config = ConfigDict(json_schema_extra={"examples": [RESUME_EXAMPLE]})

    mode: Literal["resume"] = Field(description="Which fork.")
    steps: int = Field(
        ge=1, le=1_000_000, description="Optimiser steps in all, those of the checkpoint included.", examples=[800]
    )


class WarmStartFork(_Fork):
    """Begin a new run on the weights of the checkpoint, at step 0 and with an optimiser that has seen nothing."""

    model_config = ConfigDict(json_schema_extra={"examples": [WARM_EXAMPLE]})

    mode: Literal["warm_start"] = Field(description="Which fork.")
    reference: Literal["base", "checkpoint"] = Field(
        description="What the run is held to and compared with: the bare base model, or the checkpoint. A checkpoint of a full "
        "fine-tune is a model of its own: `checkpoint` is then the only one."
    )
    spec: JobSpec | None = Field(
        None,
        description="The new run. Of a LoRA its model must be that of the checkpoint's job and its `start` is left out; of a full fine-tune its "
        "model is replaced. The spec of the checkpoint's job when left out.",
    )


Fork = Annotated[ResumeFork | WarmStartFork, Field(discriminator="mode")]

ANCESTRY_EXAMPLE: dict[str, Any] = {
    "object": "ancestry",
    "job_id": JOB_ID,
    "ancestors": [
        {
            "job_id": "job_01kaexz4d6g8j1m3p5r7t9w2y4",
            "checkpoint_id": "ckpt_01kaf0n5b8d1f4h7k0m3p6r9t2",
            "step": 400,
            "mode": "warm_start",
            "reference": "base",
        }
    ],
    "children": [
        {
            "job_id": "job_01kaf3b7c9e2g4j6m8p1r3t5w7",
            "name": "twice as long",
            "status": "queued",
            "parent": {
                "job_id": JOB_ID,
                "checkpoint_id": "ckpt_01kaf2s9u1w3y5a7c9e1g3j5m7",
                "step": 400,
                "mode": "resume",
                "reference": None,
            },
        }
    ],
}


class Child(Resource):
    """A job that was forked from a checkpoint of another."""

    job_id: str
    name: str | None
    status: JobState
    parent: Parent

    @classmethod
    def of(cls, found: RelativeRecord) -> "Child":
        return cls(job_id=found.job_id, name=found.name, status=found.state, parent=Parent.of(found.parent))


class Ancestry(Resource):
    """Where a job comes from, and what came from it."""

    model_config = with_example(ANCESTRY_EXAMPLE)

    object: Literal["ancestry"] = "ancestry"
    job_id: str
    ancestors: list[Parent] = Field(
        description="Its parent, the parent of that, and so on, as far as they are there; at most 100."
    )
    children: list[Child] = Field(description="The newest hundred jobs that were forked from its checkpoints.")
