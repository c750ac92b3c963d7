"""What every request's and every answer's model has in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from alignment_core.spec.base import Spec


class RequestBody(Spec):
    """Base of every request's body: checked as strictly as a job's spec."""


class Resource(BaseModel):
    """Base of every answer: unknown fields are a mistake of ours, and NaN becomes null."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")


class Entry(Resource):
    """Base of every answer that occurs in lists."""

    id: str = Field(description="A prefix that says what it is, then what sorts by time or a name.")


def with_example(example: dict[str, Any]) -> ConfigDict:
    """Model configuration that shows `example` in the OpenAPI document."""
    return ConfigDict(json_schema_extra={"examples": [example]})
