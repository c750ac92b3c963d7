"""What all reports have in common."""

from pydantic import BaseModel, ConfigDict


class ReportBase(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")
