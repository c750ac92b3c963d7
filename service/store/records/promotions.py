"""Names of checkpoints, and what earned them."""

from datetime import datetime

from service.store.records.base import Record


class Proof(Record):
    """What a report says of its primary reward, as it was when a checkpoint was promoted."""

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
    evaluation_id: str | None = None  # whose report it is, where it is not the job's own
    contender: str | None = None
    anchor: str | None = None


class PromotionRecord(Record):
    id: str
    project_id: str
    alias: str
    checkpoint_id: str | None
    job_id: str | None
    step: int | None
    previous_checkpoint_id: str | None
    proof: Proof | None
    forced: bool
    reason: str | None
    created_at: datetime


class AliasRecord(Record):
    """A name, and how it came by what it points at."""

    name: str
    promotion: PromotionRecord
