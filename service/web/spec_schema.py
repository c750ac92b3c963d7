"""The JSON Schema of a job's spec, as a form walks through it: references followed, "or null" told apart, kinds named.

It is the schema that `/openapi.json` has of `JobSpec`; the methods' own are parts of it.
"""

from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any, Literal, NamedTuple, TypeVar

from alignment_core.spec import JobSpec

Kind = Literal["group", "choice", "select", "boolean", "integer", "number", "text", "lines", "items", "json"]
Schema = Mapping[str, Any]
T = TypeVar("T")
ON, BY_NAME, WAS, SET = "_on", "_name", "_was", "_set"
"""Beside the fields of an object: whether it is there at all, the text that may stand for it, the `type` that its controls are of, and the
prompt set that stands for lines."""


class Node(NamedTuple):
    """A place in the schema: what may stand there, `is_nullable` for null too."""

    kind: Kind
    schema: Schema
    is_nullable: bool


@cache
def spec_schema() -> Schema:
    """Made once, since it takes a tenth of a second."""
    return JobSpec.model_json_schema()


def known_by_place(ask: Callable[[Schema], T]) -> Callable[[Schema], T]:
    """What `ask` says of a part of the one schema, asked once a process: a form walks through thousands of them.

    Parts are told apart by where they lie in memory, so each is kept there with its answer.
    """
    known: dict[int, tuple[Schema, T]] = {}

    @wraps(ask)
    def answer(schema: Schema) -> T:
        if (found := known.get(id(schema))) is None:
            found = known[id(schema)] = (schema, ask(schema))
        return found[1]

    return answer


@known_by_place
def node_of(schema: Schema) -> Node:
    """What may stand where `schema` holds."""
    inner, is_nullable = _without_null(_followed(schema))
    inner = _with_one_enum(inner)
    return Node(_kind(inner), inner, is_nullable)


@known_by_place
def item_of(schema: Schema) -> Schema:
    """Of a list: what a place in it holds, which is nothing where one may be added."""
    return {"anyOf": [schema["items"], {"type": "null"}]}


def properties(schema: Schema) -> Mapping[str, Schema]:
    return schema.get("properties", {})


@known_by_place
def choices(schema: Schema) -> Mapping[str, Schema]:
    """The members of a union by their `type`."""
    return {name: {"$ref": ref} for name, ref in schema["discriminator"]["mapping"].items()}


def member(schema: Schema, value: Any) -> Schema | None:
    """The schema of the member of a union that `value` is, by its `type`; None where it names none."""
    kind = value.get("type") if isinstance(value, Mapping) else None
    found = choices(schema).get(kind) if isinstance(kind, str) else None
    return None if found is None else node_of(found).schema


def filled(schema: Schema, value: Any) -> Any:
    """`value` with every default written out: two values that mean the same are equal then."""
    node = node_of(schema)
    if node.kind == "items" and isinstance(value, list):
        return [filled(node.schema["items"], one) for one in value]
    if node.kind == "choice" and (found := member(node.schema, value)) is not None:
        return {"type": value["type"], **filled(found, value)}
    if node.kind == "group" and isinstance(value, Mapping):
        fields = properties(node.schema)
        given = {name: filled(one, value[name]) for name, one in fields.items() if name in value}
        left = {
            name: filled(one, one["default"]) for name, one in fields.items() if name not in value and "default" in one
        }
        return {**left, **given, **{name: one for name, one in value.items() if name not in fields}}
    return value


def _followed(schema: Schema) -> Schema:
    if "$ref" not in schema:
        return schema
    found = spec_schema()["$defs"][schema["$ref"].rsplit("/", 1)[-1]]
    return {**found, **{key: value for key, value in schema.items() if key != "$ref"}}


def _without_null(schema: Schema) -> tuple[Schema, bool]:
    some = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    if "anyOf" not in schema or len(some) == len(schema["anyOf"]):
        return schema, False
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return ({**_followed(some[0]), **rest} if len(some) == 1 else {**rest, "anyOf": some}), True


def _with_one_enum(schema: Schema) -> Schema:
    """Several lists of words as one."""
    words = [one.get("enum", [one["const"]] if "const" in one else None) for one in schema.get("anyOf", ())]
    if not words or None in words:
        return schema
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return {**rest, "type": "string", "enum": [word for some in words for word in some]}


def _kind(schema: Schema) -> Kind:
    match schema:
        case {"discriminator": _}:
            return "choice"
        case {"properties": _}:
            return "group"
        case {"enum": _} | {"const": _}:
            return "select"
        case {"type": "boolean"}:
            return "boolean"
        case {"type": "integer"}:
            return "integer"
        case {"type": "number"}:
            return "number"
        case {"type": "string"}:
            return "text"
        case {"type": "array", "items": items}:
            return "items" if node_of(items).kind in ("choice", "group") else "lines"
        case {"oneOf": [{"type": "array"}, *_]}:
            return "lines"
        case _:
            return "json"
