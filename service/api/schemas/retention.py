"""How long checkpoints stay, over HTTP."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas.base import Resource, with_example
from service.api.schemas.checkpoints import CHECKPOINT_ID
from service.api.schemas.jobs import JOB_ID
from service.store.retention_rules import Goes, Policy, Stays, Verdict

POLICY_EXAMPLE: dict[str, Any] = {"keep_last": 2, "keep_best": True, "ttl_days": None}
JOB_RETENTION_EXAMPLE: dict[str, Any] = {
    "object": "job_retention",
    "job_id": JOB_ID,
    "policy": POLICY_EXAMPLE,
    "is_own": False,
    "checkpoints": [{"id": CHECKPOINT_ID, "goes": False, "reason": "result"}],
}


class RetentionPolicy(BaseModel):
    """Which checkpoints of ended jobs stay. Left out altogether, all do."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [POLICY_EXAMPLE]})

    keep_last: int | None = Field(
        None, ge=0, le=10_000, description="So many of the latest stay beside the job's result; all when null."
    )
    keep_best: bool = Field(True, description="Whether the one with the best probe stays beside `keep_last`.")
    ttl_days: float | None = Field(
        None, gt=0, le=36_500, description="What is older goes, the job's result and the best one too; never when null."
    )

    def rule(self) -> Policy:
        return Policy(self.keep_last, self.keep_best, self.ttl_days)

    @classmethod
    def of(cls, policy: Policy) -> "RetentionPolicy":
        return cls(keep_last=policy.keep_last, keep_best=policy.keep_best, ttl_days=policy.ttl_days)


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
    checkpoints: list[CheckpointOutlook] = Field(description="The earliest step first.")
