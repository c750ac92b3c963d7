"""The base of every part of a job spec."""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """Base of every part of a job spec: frozen, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
