"""Unions whose members are told apart by `type`, and what may be written in short for a member. Pure data.

`"adapter": "lora"` is `{"type": "lora"}`, `"model": "sd15"` is `{"type": "catalog", "name": "sd15"}`. The short form is
written out before anything else looks at it: schemas, hashes and stored specs know the long one alone.
"""

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, Discriminator, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

LONGEST_SHOWN = 64

Named = Callable[[str], Mapping[str, str] | None]


def preset_among(names: Collection[str]) -> Named:
    """`paper` as the preset of this name."""
    return lambda text: {"type": "preset", "name": text} if text in names else None


@dataclass(frozen=True)
class OneOf:
    """Annotation of a union whose members have a `type`.

    Text stands for the member that `named` makes of it, or else for the member of this type with all its defaults.
    `long` shows what to write where text is not understood.
    """

    named: Named | None = None
    long: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        members: tuple[type[BaseModel], ...] = get_args(source)
        fields = {member.model_fields["type"].default: tuple(member.model_fields) for member in members}
        union = Discriminator("type").__get_pydantic_core_schema__(source, handler)
        return core_schema.no_info_before_validator_function(lambda value: self._written_out(value, fields), union)

    def _written_out(self, value: Any, fields: Mapping[str, tuple[str, ...]]) -> Any:
        match value:
            case str():
                return self._of_text(value, fields)
            case dict() if "type" not in value:
                raise PydanticCustomError("union_tag_not_found", "{message}", {"message": _untyped(value, fields)})
            case dict() if not (isinstance(value["type"], str) and value["type"] in fields):
                message = _unknown(value["type"], fields)
                raise PydanticCustomError("union_tag_invalid", "{message}", {"message": message, "places": ["type"]})
            case dict() | BaseModel():
                return value
            case _:
                message = f"expected an object with a `type`, which is one of {', '.join(fields)}"
                raise PydanticCustomError("union_type", "{message}", {"message": message})

    def _of_text(self, text: str, fields: Mapping[str, tuple[str, ...]]) -> Mapping[str, str]:
        if self.named is not None and (found := self.named(text)) is not None:
            return found
        if text in fields:
            return {"type": text}
        message = f"{_shown(text)} is not understood; {self.long}" if self.long else _unknown(text, fields)
        raise PydanticCustomError("union_tag_invalid", "{message}", {"message": message})


def _unknown(kind: Any, fields: Mapping[str, tuple[str, ...]]) -> str:
    guessable = isinstance(kind, str) and len(kind) <= LONGEST_SHOWN
    of_its_words = [known for known in fields if guessable and kind in known.split("_")]  # dpo is not dpok
    near = of_its_words or (difflib.get_close_matches(kind, fields, n=1) if guessable else [])
    return f"{_shown(kind)} is none of {', '.join(fields)}" + (f"; did you mean {near[0]!r}?" if near else "")


def _untyped(value: Mapping[Any, Any], fields: Mapping[str, tuple[str, ...]]) -> str:
    """Which `type` an object without one has to say: those that have all of its fields come first."""
    fitting = [kind for kind, known in fields.items() if value and all(name in known for name in value)]
    if len(fitting) == 1:
        return f'say which kind this is: add "type": "{fitting[0]}"'
    return f"say which kind this is: its `type` is one of {', '.join(fitting or fields)}"


def _shown(value: Any) -> str:
    if not isinstance(value, str):
        return "this"
    return repr(value if len(value) <= LONGEST_SHOWN else f"{value[:LONGEST_SHOWN]}...")
