"""How long checkpoints stay."""

from pydantic import Field

from attune.resources.base import Resource


class RetentionPolicy(Resource):
    keep_last: int | None
    keep_best: bool
    ttl_days: float | None
    unfinished_days: float | None = None


class CheckpointOutlook(Resource):
    """Whether a checkpoint goes with the next sweep, and why or why not."""

    id: str
    goes: bool
    reason: str


class JobPins(Resource):
    """What is pinned as it is saved."""

    steps: list[int] = Field(default_factory=list)
    result: bool = False


class JobRetention(Resource):
    job_id: str
    policy: RetentionPolicy
    is_own: bool
    pins: JobPins = JobPins()
    checkpoints: list[CheckpointOutlook]
