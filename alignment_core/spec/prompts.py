"""Where prompts come from: a list in the spec itself, a set that was uploaded, or a file. Pure data."""

import re
from typing import Annotated, Any, Literal, assert_never

from pydantic import Discriminator, Field, GetJsonSchemaHandler, StringConstraints, Tag
from pydantic_core import CoreSchema

from alignment_core.spec.base import Spec
from alignment_core.spec.sources import ColumnName, LocalPath, Prompts
from alignment_core.spec.unions import OneOf

PROMPT_SET_ID = r"^ps_[0-9a-z]{26}$"
SHA256 = r"^[0-9a-f]{64}$"

PromptSetId = Annotated[str, StringConstraints(pattern=PROMPT_SET_ID)]
PromptsHash = Annotated[
    str | None,
    Field(
        pattern=SHA256,
        description="SHA-256 of the canonical JSON list of the prompts: the run is refused where they are others by now.",
    ),
]


class PromptSetSource(Spec):
    """Prompts that were uploaded to the service; see `POST /v1/prompt_sets`. A job keeps their hash and their number."""

    type: Literal["prompt_set"] = "prompt_set"
    id: PromptSetId = Field(description="Id of the prompt set.")
    sha256: PromptsHash = None
    count: int | None = Field(
        default=None, ge=1, description="How many prompts it has. The service writes it when a job is created."
    )


class LocalPrompts(Spec):
    """A file of prompts on the machine that trains, in any form of docs/prompts.md.

    The HTTP service refuses it unless its operator allows it.
    """

    type: Literal["local"] = "local"
    path: LocalPath = Field(examples=["prompts/parti.tsv"])
    column: ColumnName | None = Field(
        default=None, description="Which column or key holds the prompts, where its name does not say so."
    )
    sha256: PromptsHash = None


def _named(text: str) -> dict[str, str] | None:
    """`ps_...` as the uploaded prompts of this id."""
    return {"type": "prompt_set", "id": text} if re.fullmatch(PROMPT_SET_ID, text) else None


def _form(value: Any) -> str:
    """Everything that could be no source is a bad list."""
    return "source" if isinstance(value, str | dict | Spec) else "list"


class _BesideAList:
    """The sources' JSON schema without `discriminator`: validators that know it look at objects alone, and would let a list pass for one."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(schema).items() if name != "discriminator"}


PromptSource = Annotated[
    PromptSetSource | LocalPrompts,
    OneOf(
        _named,
        'put it in brackets, ["..."], or write the id of an uploaded prompt set ("ps_...") or {"type": "local", "path": FILE}',
    ),
    _BesideAList(),
]

TrainingPrompts = Annotated[
    Annotated[Prompts, Field(min_length=1, max_length=100_000), Tag("list")] | Annotated[PromptSource, Tag("source")],
    Discriminator(_form),
]
HeldOutPrompts = Annotated[
    Annotated[Prompts, Field(min_length=1, max_length=10_000), Tag("list")] | Annotated[PromptSource, Tag("source")],
    Discriminator(_form),
]


def listed(prompts: Prompts | PromptSetSource | LocalPrompts) -> Prompts:
    """The prompts of a spec in which sources have been replaced by what they hold."""
    assert isinstance(prompts, tuple), f"{prompts} has not been read"
    return prompts


def num_expected(prompts: Prompts | PromptSetSource | LocalPrompts | None, unknown: int) -> int:
    """How many there are, or `unknown` where the spec does not say it."""
    match prompts:
        case tuple():
            return len(prompts)
        case PromptSetSource(count=count):
            return unknown if count is None else count
        case LocalPrompts() | None:
            return unknown
        case _:
            assert_never(prompts)
