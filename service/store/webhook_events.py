"""What webhooks are told: `{type, timestamp, version, data}`, thin, with ids, states and the numbers that matter.

A payload holds no prompt, no path, no message of an error and no metadata: it leaves for an address on the internet, and whoever
wants more asks the API with a key. Fields are only ever added; what would break a receiver raises `version`.
"""

from datetime import datetime
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

VERSION = 1

JobEndedType = Literal["job.succeeded", "job.stopped", "job.failed", "job.cancelled"]
EvaluationEndedType = Literal["evaluation.succeeded", "evaluation.failed", "evaluation.cancelled"]
UploadCheckedType = Literal["dataset.ready", "dataset.failed", "weights.ready", "weights.failed"]
AliasChangedType = Literal["champion.changed", "alias.changed"]
EventType = Literal[
    JobEndedType,
    "job.guard_spoke",
    EvaluationEndedType,
    "evaluation.verified",
    "sweep.ended",
    UploadCheckedType,
    AliasChangedType,
    "webhook.disabled",
]
"""What may be subscribed to; a ping is asked for and comes to whom it was asked for."""

EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)
PING = "webhook.ping"


class Told(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")


class Gain(Told):
    """Of the report's primary reward: policy minus base on the same prompts and seeds."""

    reward: str
    gain: float | None
    low: float | None = Field(description="Of the gain's interval.")
    high: float | None


class JobEnded(Told):
    id: str
    name: str | None
    state: Literal["succeeded", "failed", "cancelled"]
    check_only: bool = Field(description="Whether only the start checks were asked for.")
    step: int = Field(description="Optimiser steps done.")
    total_steps: int | None
    stopped_by: str | None = Field(description="The guard that ended the training early.")
    error_code: str | None
    result_checkpoint_id: str | None
    sweep_id: str | None = Field(description="Of a sweep's job.")
    gain: Gain | None = Field(description="Null where there is no report.")


class GuardSpoke(Told):
    id: str = Field(description="Of the job.")
    name: str | None
    guard: str = Field(description="Its code, as in the spec: `margin_saturation`, `reward_hacking`, ...")
    step: int | None


class ContenderGain(Gain):
    contender: str


class EvaluationEnded(Told):
    id: str
    name: str | None
    state: Literal["succeeded", "failed", "cancelled"]
    error_code: str | None
    best: str | None = Field(description="The contender, if the corrected test names one.")
    gains: list[ContenderGain] = Field(description="Of each contender over the anchor.")


class EvaluationVerified(Told):
    id: str = Field(description="Of the evaluation.")
    verification_id: str
    state: Literal["succeeded", "failed", "cancelled"]
    error_code: str | None
    outcome: str | None = Field(description="`identical`, `close` or `different`.")
    num_images: int | None
    num_equal_images: int | None


class BestTrial(Told):
    number: int = Field(description="Of the trial, from 0.")
    job_id: str
    checkpoint_id: str | None = Field(description="The job's result.")
    gain: Gain


class SweepEnded(Told):
    id: str
    name: str | None
    state: Literal["ended", "cancelled"]
    num_trials: int
    num_succeeded: int
    num_failed: int = Field(description="Those that could not be queued among them.")
    num_cancelled: int
    best: BestTrial | None = Field(description="Only if the corrected test names one.")


class UploadChecked(Told):
    id: str
    name: str | None
    state: Literal["ready", "failed"]
    error_code: str | None
    num_rows: int | None = Field(description="Of a data set.")
    num_usable_rows: int | None


class AliasChanged(Told):
    alias: str
    promotion_id: str
    checkpoint_id: str | None = Field(description="Null where the name was taken away.")
    previous_checkpoint_id: str | None
    job_id: str | None
    step: int | None
    forced: bool = Field(description="Whether no report showed that the checkpoint is better.")
    gain: Gain | None = Field(description="Of the report that earned it the name.")


class WebhookDisabled(Told):
    id: str = Field(description="Of another webhook of the project.")
    because: Literal["gone", "failing"] = Field(description="It answered 410, or nothing good for days.")
    failing_since: datetime | None


class Pinged(Told):
    webhook_id: str


# --- the payloads --------------------------------------------------------------------------------------------------


class Payload(Told):
    """What every payload has: `type` says what `data` is."""

    timestamp: datetime = Field(description="When it happened; `webhook-timestamp` is when it was sent.")
    version: Literal[1] = Field(default=VERSION, description="Of the payload's form. Fields may be added within one.")


class JobEndedPayload(Payload):
    """A job has ended. `job.stopped` is one that succeeded although a guard ended its training early."""

    type: JobEndedType
    data: JobEnded


class GuardSpokePayload(Payload):
    """A guard saw what its job's owner wants to know of; what follows from it is in the job's spec."""

    type: Literal["job.guard_spoke"] = "job.guard_spoke"
    data: GuardSpoke


class EvaluationEndedPayload(Payload):
    """An evaluation has ended."""

    type: EvaluationEndedType
    data: EvaluationEnded


class EvaluationVerifiedPayload(Payload):
    """A verification of an evaluation has ended, well or not."""

    type: Literal["evaluation.verified"] = "evaluation.verified"
    data: EvaluationVerified


class SweepEndedPayload(Payload):
    """Every job of a sweep has ended, or it was cancelled and they have."""

    type: Literal["sweep.ended"] = "sweep.ended"
    data: SweepEnded


class UploadCheckedPayload(Payload):
    """A worker has looked at what was uploaded, or the upload broke off."""

    type: UploadCheckedType
    data: UploadChecked


class AliasChangedPayload(Payload):
    """A name points at another checkpoint: `champion.changed` for the champion, `alias.changed` for every other name."""

    type: AliasChangedType
    data: AliasChanged


class WebhookDisabledPayload(Payload):
    """The service gave up on another webhook of the project."""

    type: Literal["webhook.disabled"] = "webhook.disabled"
    data: WebhookDisabled


class PingPayload(Payload):
    """Somebody asked for a test. It is sent once."""

    type: Literal["webhook.ping"] = PING
    data: Pinged


WebhookPayload = Annotated[
    JobEndedPayload
    | GuardSpokePayload
    | EvaluationEndedPayload
    | EvaluationVerifiedPayload
    | SweepEndedPayload
    | UploadCheckedPayload
    | AliasChangedPayload
    | WebhookDisabledPayload
    | PingPayload,
    Field(discriminator="type"),
]
