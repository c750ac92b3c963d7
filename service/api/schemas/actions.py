"""What is asked of a running job, over HTTP."""

from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from alignment_core.events import Action
from service.api.schemas.base import Entry, RequestBody, with_example
from service.api.schemas.job_examples import JOB_ID
from service.store.records.jobs import ActionRecord, ActionState

ACTION_EXAMPLE: dict[str, Any] = {
    "id": "act_01kaf0q8s1u3w5y7a9c2e4g6j8",
    "object": "action",
    "job_id": JOB_ID,
    "action": "probe",
    "status": "done",
    "step": 121,
    "metrics": {"colorfulness": 0.81, "colorfulness_gain": 0.13},
    "refused": None,
    "created_at": "2026-11-20T09:15:31Z",
    "answered_at": "2026-11-20T09:15:34Z",
}


class ActionRequest(RequestBody):
    """What the run shall do after its next step."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"action": "probe"}]})

    action: Action = Field(
        description="`checkpoint`: save this step, and keep it; `sample`: a picture of base and policy; `probe`: the rewards of the policy on "
        "held-out prompts."
    )


class JobAction(Entry):
    """Something that was asked of a job while it runs. It changes no number of the run."""

    model_config = with_example(ACTION_EXAMPLE)

    object: Literal["action"] = "action"
    job_id: str
    action: Action
    status: ActionState = Field(
        description="`waiting` until the run has answered, across pauses and lost workers; `done`; `refused`, with the reason; "
        "`unanswered` where the job ended before."
    )
    step: int | None = Field(description="After which it was done.")
    metrics: dict[str, float] = Field(description="Of a probe; they are in no curve and choose no checkpoint.")
    refused: str | None
    created_at: datetime
    answered_at: datetime | None

    @classmethod
    def of(cls, action: ActionRecord) -> "JobAction":
        return cls.model_validate({**action.model_dump(exclude={"state"}), "status": action.state})
