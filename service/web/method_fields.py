"""The fields of a method, as its JSON Schema tells them: kind, range, default, and what they are for."""

from collections.abc import Mapping
from typing import Any, NamedTuple

BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


class MethodField(NamedTuple):
    name: str
    kind: str
    range: str
    default: str
    description: str


def fields_of(schema: Mapping[str, Any]) -> list[MethodField]:
    """All but the method's own name."""
    found = schema.get("properties", {})
    return [_field(name, one) for name, one in found.items() if name != "type"]


def _field(name: str, schema: Mapping[str, Any]) -> MethodField:
    choices = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    first = choices[0] if choices else schema
    limits = [f"{sign} {first[key]:g}" for key, sign in BOUNDS.items() if key in first]
    values = first.get("enum") or ([first["const"]] if "const" in first else [])
    kind = " | ".join(map(str, values)) or str(first.get("type", "object"))
    default = "" if schema.get("default") is None else str(schema["default"])
    return MethodField(name, kind, ", ".join(limits), default, schema.get("description", ""))
