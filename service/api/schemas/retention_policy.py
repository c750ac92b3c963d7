"""A policy of retention over HTTP: the project's, a job's, or one that a job is submitted with; and what a job has pinned."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from service.api.schemas.base import RequestBody
from service.store.retention_rules import Pins, Policy

POLICY_EXAMPLE: dict[str, Any] = {"keep_last": 2, "keep_best": True, "ttl_days": None, "unfinished_days": 14}
PINS_EXAMPLE: dict[str, Any] = {"steps": [500], "result": True}


class RetentionPolicy(RequestBody):
    """Which checkpoints of ended jobs stay. Left out altogether, all do."""

    model_config = ConfigDict(json_schema_extra={"examples": [POLICY_EXAMPLE]})

    keep_last: int | None = Field(
        None, ge=0, le=10_000, description="So many of the latest stay beside the job's result; all when null."
    )
    keep_best: bool = Field(True, description="Whether the one with the best probe stays beside `keep_last`.")
    ttl_days: float | None = Field(
        None, gt=0, le=36_500, description="What is older goes, the job's result and the best one too; never when null."
    )
    unfinished_days: float | None = Field(
        None,
        gt=0,
        le=36_500,
        description="So many days after a job failed or was cancelled all that it left goes, though it might be resumed; never when null.",
    )

    def rule(self) -> Policy:
        return Policy(self.keep_last, self.keep_best, self.ttl_days, self.unfinished_days)

    @classmethod
    def of(cls, policy: Policy) -> "RetentionPolicy":
        return cls(**vars(policy))


class JobPins(RequestBody):
    """Which checkpoints of a job are pinned as they are saved: no policy lets them go, and `DELETE` is refused, until they are unpinned."""

    model_config = ConfigDict(json_schema_extra={"examples": [PINS_EXAMPLE]})

    steps: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=list,
        max_length=100,
        description="Those of these steps: multiples of `checkpoints.every`, or the last one.",
    )
    result: bool = Field(False, description="The job's result, which is known once training has ended.")

    def rule(self) -> Pins:
        return Pins(tuple(sorted(set(self.steps))), self.result)

    @classmethod
    def of(cls, pins: Pins) -> "JobPins":
        return cls(steps=list(pins.steps), result=pins.result)
