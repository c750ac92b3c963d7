"""What to write in place of a field that does not exist."""

import difflib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from pydantic import TypeAdapter

Schema = dict[str, Any]


def unknown_field(name: str, known: Sequence[str]) -> str:
    """A sentence that names the nearest of the `known` fields, or all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"unknown field; did you mean {near[0]!r}?"
    return f"unknown field; expected one of {', '.join(sorted(known))}" if known else "unknown field"


def fields_at(model: Any, location: Sequence[int | str]) -> list[str]:
    """The fields that an object at pydantic's `location` in `model` may have; none where it cannot be told.

    A location has the keys of objects, the numbers of list entries, and the tags of unions.
    """
    schema = _schema_of(model)
    definitions = schema.get("$defs", {})
    places = list(_alternatives(schema, definitions))
    for part in location:
        found = [inner for place in places if (inner := _step(place, part)) is not None]
        places = [one for place in found for one in _alternatives(place, definitions)]
    return list(dict.fromkeys(name for place in places for name in place.get("properties", {})))


@cache
def _schema_of(model: Any) -> Schema:
    return TypeAdapter(model).json_schema()


def _alternatives(place: Schema, definitions: dict[str, Schema]) -> Iterator[Schema]:
    if "$ref" in place:
        yield from _alternatives(definitions[place["$ref"].rpartition("/")[2]], definitions)
    elif inner := place.get("anyOf") or place.get("oneOf"):
        for one in inner:
            yield from _alternatives(one, definitions)
    else:
        yield place


def _step(place: Schema, part: int | str) -> Schema | None:
    """Where a part of a location leads: into a list, into a field, or, for a tag, to the member that has it."""
    if isinstance(part, int):
        return place.get("items")
    fields = place.get("properties", {})
    if part in fields:
        return fields[part]
    return place if fields.get("type", {}).get("const") == part else None
