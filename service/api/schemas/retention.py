"""How long checkpoints stay, over HTTP."""

from typing import Any, Literal

from pydantic import Field

from service.api.schemas.base import Resource, with_example
from service.api.schemas.checkpoints import CHECKPOINT_ID
from service.api.schemas.job_examples import JOB_ID
from service.api.schemas.retention_policy import PINS_EXAMPLE, POLICY_EXAMPLE, JobPins, RetentionPolicy
from service.store.retention_rules import Goes, Stays, Verdict

JOB_RETENTION_EXAMPLE: dict[str, Any] = {
    "object": "job_retention",
    "job_id": JOB_ID,
    "policy": POLICY_EXAMPLE,
    "is_own": False,
    "pins": PINS_EXAMPLE,
    "checkpoints": [{"id": CHECKPOINT_ID, "goes": False, "reason": "result"}],
}


class CheckpointOutlook(Resource):
    """What the next sweep does with a checkpoint, and why."""

    id: str
    goes: bool
    reason: Stays | Goes = Field(description="The first reason why it stays, or why it goes.")

    @classmethod
    def of(cls, verdict: Verdict) -> "CheckpointOutlook":
        return cls(id=verdict.id, goes=verdict.goes, reason=verdict.reason)


class JobRetention(Resource):
    """The policy that a job is under, and what follows from it now."""

    model_config = with_example(JOB_RETENTION_EXAMPLE)

    object: Literal["job_retention"] = "job_retention"
    job_id: str
    policy: RetentionPolicy
    is_own: bool = Field(description="Whether it is the job's own; else it is the project's.")
    pins: JobPins = Field(
        description="What the job was submitted with: pinned as it is saved. One that was unpinned since is listed here all the same."
    )
    checkpoints: list[CheckpointOutlook] = Field(description="The earliest step first.")
