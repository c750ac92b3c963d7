"""Aliases and promotions over HTTP."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from alignment_core.spec.sources import WITHOUT_NUL, AliasSource, CheckpointId, Name
from service.api.schemas.base import Entry, RequestBody, Resource, with_example
from service.api.schemas.job_examples import JOB_ID
from service.store.aliases import CHAMPION
from service.store.records.promotions import AliasRecord, PromotionRecord

PROMOTION_ID = "prm_01kaf0q2s4u6w8y0a2c4e6g8j0"
CHECKPOINT_ID = "ckpt_01kaf0n5b8d1f4h7k0m3p6r9t2"

PROMOTION_REQUESTS: list[Any] = [
    {"checkpoint_id": CHECKPOINT_ID},
    {"checkpoint_id": CHECKPOINT_ID, "evaluation_id": "eval_01kaf0h2v7x3m5q8r1s4t6w9yz"},
]
PROOF_EXAMPLE: dict[str, Any] = {
    "job_id": JOB_ID,
    "step": 400,
    "report_sha256": "9b" * 32,
    "reward": "colorfulness",
    "gain": 0.17,
    "low": 0.15,
    "high": 0.19,
    "confidence": 0.95,
    "holm_p_value": None,
    "verdict": "improved",
    "num_prompts": 128,
    "evaluation_id": None,
    "contender": None,
    "anchor": None,
}
PROMOTION_EXAMPLE: dict[str, Any] = {
    "id": PROMOTION_ID,
    "object": "promotion",
    "alias": "champion",
    "checkpoint_id": CHECKPOINT_ID,
    "job_id": JOB_ID,
    "step": 400,
    "previous_checkpoint_id": None,
    "proof": PROOF_EXAMPLE,
    "forced": False,
    "reason": None,
    "created_at": "2026-11-20T10:02:11Z",
}
ALIAS_EXAMPLE: dict[str, Any] = {
    "id": "champion",
    "object": "alias",
    "checkpoint_id": CHECKPOINT_ID,
    "promotion": PROMOTION_EXAMPLE,
    "source": {"type": "alias", "name": "champion"},
}

EvaluationId = Annotated[
    str, StringConstraints(pattern=r"^eval_[0-9a-z]{26}$"), Field(examples=["eval_01kaf0h2v7x3m5q8r1s4t6w9yz"])
]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=WITHOUT_NUL)]


class PromotionRequest(RequestBody):
    """Which name moves onto which checkpoint."""

    model_config = ConfigDict(json_schema_extra={"examples": PROMOTION_REQUESTS})

    checkpoint_id: CheckpointId
    alias: Name = Field(CHAMPION, description="`champion`, `candidate`, or a name of your own.")
    evaluation_id: EvaluationId | None = Field(
        None,
        description="An evaluation that has to show it, in place of the job's own report: the checkpoint competes in it, as it is, against "
        "what the name points at now, or against the model that its job began from.",
    )
    force: bool = Field(False, description="Without a report that shows it is better; needs a `reason`, which is kept.")
    reason: Reason | None = Field(None, description="For people, in the history.")


class Proof(Resource):
    """What the report on the checkpoint says of its primary reward: policy minus base, or contender minus anchor, on the same prompts and seeds."""

    job_id: str
    step: int
    report_sha256: str
    reward: str
    gain: float
    low: float = Field(description="Of the gain's interval, which a promotion needs above zero.")
    high: float
    confidence: float
    holm_p_value: float | None = Field(
        None,
        description="After Holm's correction, in an evaluation of more than two; a promotion needs it below 1 - `confidence`.",
    )
    verdict: str
    num_prompts: int
    evaluation_id: str | None = Field(
        None, description="Whose report it is; null for that of the checkpoint's own job."
    )
    contender: str | None = Field(None, description="What the evaluation calls the checkpoint.")
    anchor: str | None = Field(None, description="What the evaluation calls what it was compared with.")


class Promotion(Entry):
    """A name that moved onto a checkpoint, or that was taken away. It never changes, and outlives both."""

    model_config = with_example(PROMOTION_EXAMPLE)

    object: Literal["promotion"] = "promotion"
    alias: str
    checkpoint_id: str | None = Field(description="Null where the name was taken away.")
    job_id: str | None
    step: int | None
    previous_checkpoint_id: str | None = Field(description="What the name pointed at before.")
    proof: Proof | None = Field(description="Of the report at that time; null where there was none.")
    forced: bool = Field(description="Whether it moved although no report showed that the checkpoint is better.")
    reason: str | None
    created_at: datetime

    @classmethod
    def of(cls, promotion: PromotionRecord) -> "Promotion":
        return cls.model_validate(promotion.model_dump(exclude={"project_id"}))


class Alias(Entry):
    """A name of the project and what it points at; `id` is the name."""

    model_config = with_example(ALIAS_EXAMPLE)

    object: Literal["alias"] = "alias"
    checkpoint_id: str
    promotion: Promotion = Field(description="How it came by the name, with the report that earned it.")
    source: AliasSource = Field(description="What to write as `spec.model` of a job that begins from it.")

    @classmethod
    def of(cls, alias: AliasRecord) -> "Alias":
        assert alias.promotion.checkpoint_id is not None, "a name that points at nothing is no alias"
        return cls(
            id=alias.name,
            checkpoint_id=alias.promotion.checkpoint_id,
            promotion=Promotion.of(alias.promotion),
            source=AliasSource(name=alias.name),
        )
