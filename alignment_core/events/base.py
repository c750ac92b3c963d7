"""What all events have in common."""

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field


class EventBase(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")

    time: datetime = Field(default_factory=lambda: datetime.now(UTC), description="When it happened, UTC.")
