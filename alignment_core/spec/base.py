"""The base of every part of a job spec, and how its rules between fields say where they were broken."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError

from alignment_core.spec.exact_kinds import with_exact_kinds


class Spec(BaseModel):
    """Base of every part of a job spec: frozen, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return with_exact_kinds(handler(source))


@dataclass(frozen=True)
class AtFirstMistake:
    """Annotation of a long list: the first entry that is wrong is told, and a hundred thousand like it are not."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return {**handler(source), "fail_fast": True}  # pyright: ignore[reportReturnType]


def misfit(message: str, *places: str) -> PydanticCustomError:
    """A rule between fields that is broken, for the model that checks it to raise.

    `places` are the fields to change, the likeliest first, each with dots from that model on: pydantic itself would only
    point at the whole model, for a rule of `JobSpec` at everything.
    """
    return PydanticCustomError("value_error", "{message}", {"message": message, "places": list(places)})
