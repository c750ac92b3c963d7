"""What is asked of a run, what it warns of, and how it ends."""

from typing import Literal

from pydantic import Field

from alignment_core.errors import Category
from alignment_core.events.base import EventBase

Action = Literal["checkpoint", "sample", "probe"]


class ActionAnswered(EventBase):
    """What was asked of the run by `POST .../actions` is done, or cannot be."""

    type: Literal["action_answered"] = "action_answered"
    id: str = Field(description="Of the request.")
    action: Action
    step: int = Field(description="After which it was done.")
    metrics: dict[str, float] = Field(
        default={},
        description="Of a probe: as those of `probe_completed`. They are in no curve and choose no checkpoint.",
    )
    refused: str | None = Field(default=None, description="Why it could not be done.")


class WarningRaised(EventBase):
    type: Literal["warning_raised"] = "warning_raised"
    code: str
    message: str
    step: int | None = None


class RunStopped(EventBase):
    """The run was asked to leave, saved its state and left; it can be resumed from `step`."""

    type: Literal["run_stopped"] = "run_stopped"
    step: int


class RunFailed(EventBase):
    type: Literal["run_failed"] = "run_failed"
    code: str
    message: str
    category: Category
    retryable: bool
    hint: str | None = None
    step: int | None = Field(default=None, description="The step of the last good checkpoint, if there is one.")


class RunCompleted(EventBase):
    type: Literal["run_completed"] = "run_completed"
    step: int
