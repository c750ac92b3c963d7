"""What the JSON Schema of a model says of a place in it: which fields there are, what they mean, where else one is."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import TypeAdapter

Schema = dict[str, Any]
Location = Sequence[int | str]
FORMS = ("list", "source")  # tags of what may be a list or an object that says where one is


def places_at(model: Any, location: Location) -> list[Schema]:
    """The schemas that a value at pydantic's `location` in `model` may have; none where it cannot be told.

    A location has the keys of objects, the numbers of list entries, and the tags of unions.
    """
    schema = _schema_of(model)
    definitions = schema.get("$defs", {})
    places = [schema]
    for part in location:
        inner = [one for place in places for one in _alternatives(place, definitions)]
        places = [found for place in inner if (found := _step(place, part)) is not None]
    return places


def fields_at(model: Any, location: Location) -> list[str]:
    """The fields that an object at the location may have."""
    definitions = _schema_of(model).get("$defs", {})
    objects = [one for place in places_at(model, location) for one in _alternatives(place, definitions)]
    return list(dict.fromkeys(name for place in objects for name in place.get("properties", {})))


def kinds_at(model: Any, location: Location) -> list[str]:
    """The values that `type` may have at the location, where it is a union."""
    definitions = _schema_of(model).get("$defs", {})
    objects = [one for place in places_at(model, location) for one in _alternatives(place, definitions)]
    kinds = [place.get("properties", {}).get("type", {}).get("const") for place in objects]
    return [kind for kind in kinds if kind is not None]


def description_at(model: Any, location: Location) -> str | None:
    """What the field at the location is said to be."""
    return next((place["description"] for place in places_at(model, location) if "description" in place), None)


def places_named(model: Any, name: str) -> list[str]:
    """Where fields of this name are, with dots, the outer ones first; not those inside of lists."""
    return sorted(_index(model).get(name, ()), key=lambda place: place.count("."))


@cache
def _schema_of(model: Any) -> Schema:
    return {} if model is None else TypeAdapter(model).json_schema()


@cache
def _index(model: Any) -> Mapping[str, dict[str, None]]:
    schema = _schema_of(model)
    found: dict[str, dict[str, None]] = {}
    for name, place in _named(schema, schema.get("$defs", {}), ""):
        found.setdefault(name, {})[place] = None
    return found


def _named(place: Schema, definitions: Mapping[str, Schema], path: str) -> Iterator[tuple[str, str]]:
    for one in _alternatives(place, definitions):
        for name, inner in one.get("properties", {}).items():
            yield name, f"{path}{name}"
            yield from _named(inner, definitions, f"{path}{name}.")


def _alternatives(place: Schema, definitions: Mapping[str, Schema]) -> Iterator[Schema]:
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
    if part in FORMS:
        return place
    fields = place.get("properties", {})
    if part in fields:
        return fields[part]
    return place if fields.get("type", {}).get("const") == part else None
