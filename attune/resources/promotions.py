"""Names of checkpoints, and what earned them."""

from datetime import datetime

from attune.resources.base import Resource


class Proof(Resource):
    """What the report on a checkpoint says of its primary reward."""

    job_id: str
    step: int
    report_sha256: str
    reward: str
    gain: float
    low: float
    high: float
    confidence: float
    holm_p_value: float | None = None
    verdict: str
    num_prompts: int
    evaluation_id: str | None = None
    contender: str | None = None
    anchor: str | None = None


class Promotion(Resource):
    """A name that moved onto a checkpoint, or that was taken away."""

    id: str
    alias: str
    checkpoint_id: str | None
    job_id: str | None
    step: int | None
    previous_checkpoint_id: str | None
    proof: Proof | None
    forced: bool
    reason: str | None
    created_at: datetime


class Alias(Resource):
    """A name of the project, and how it came by what it points at; `id` is the name."""

    id: str
    checkpoint_id: str
    promotion: Promotion
