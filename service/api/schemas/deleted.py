"""What a DELETE answers."""

from typing import Any, Literal

from pydantic import Field

from service.api.schemas.base import Resource, with_example
from service.api.schemas.job_examples import JOB_ID

DELETED_EXAMPLE: dict[str, Any] = {"id": JOB_ID, "object": "job", "deleted": True}


class Deleted(Resource):
    """Something that is no longer there. Its files leave the object store within moments, or once the store answers."""

    model_config = with_example(DELETED_EXAMPLE)

    id: str = Field(description="Its id; of a report that of its job.")
    object: Literal[
        "dataset",
        "weights",
        "prompt_set",
        "upload",
        "job",
        "evaluation",
        "candidates",
        "labeling",
        "sweep",
        "checkpoint",
        "alias",
        "export",
        "push",
        "sample",
        "report",
        "webhook",
        "session",
    ] = Field(description="What it was.")
    deleted: Literal[True] = True
