"""From what was typed into the controls of a form to a spec, in which only what differs from its default is written.

What cannot be read as what its field holds stays in the spec as it was typed: the API then says at this field what it expected, and
nothing is lost.
"""

import json
from collections.abc import Mapping
from typing import Any

from service.web.spec_form import OPENS_JSON
from service.web.spec_schema import (
    BY_NAME,
    ON,
    SET,
    WAS,
    Node,
    Schema,
    choices,
    filled,
    item_of,
    node_of,
    properties,
    spec_schema,
)

Typed = Mapping[str, str]
"""By the name of the control, `f.` and the path with dots; of several with one name the last."""

LEFT_OUT: Any = object()


def spec_of(typed: Typed) -> dict[str, Any]:
    """The spec that the controls say."""
    return _group(spec_schema(), "f", typed)


def _group(schema: Schema, name: str, typed: Typed) -> dict[str, Any]:
    values = {key: _value(one, f"{name}.{key}", typed) for key, one in properties(schema).items() if "const" not in one}
    return {key: value for key, value in values.items() if value is not LEFT_OUT}


def _value(schema: Schema, name: str, typed: Typed) -> Any:
    """What stands there, or `LEFT_OUT` where that is the default."""
    value = _typed(node_of(schema), name, typed)
    if value is LEFT_OUT or "default" not in schema:
        return value
    return LEFT_OUT if filled(schema, value) == filled(schema, schema["default"]) else value


def _typed(node: Node, name: str, typed: Typed) -> Any:
    match node.kind:
        case "group":
            is_on = typed.get(f"{name}.{ON}")
            if node.is_nullable and is_on != "true":
                return LEFT_OUT if is_on is None else None
            return _group(node.schema, name, typed)
        case "choice":
            return _chosen(node, name, typed)
        case "items":
            return _items(node, name, typed)
        case "lines" if chosen := typed.get(f"{name}.{SET}"):
            return {"type": "prompt_set", "id": chosen}
        case _:
            return _leaf(node, typed[name]) if name in typed else LEFT_OUT


def _chosen(node: Node, name: str, typed: Typed) -> Any:
    kind = typed.get(f"{name}.type")
    if kind == BY_NAME:
        return typed.get(f"{name}.{BY_NAME}") or LEFT_OUT
    if not kind:
        return None if node.is_nullable and kind == "" else LEFT_OUT
    members = choices(node.schema)
    if kind not in members:
        return {"type": kind}
    schema, was = node_of(members[kind]).schema, typed.get(f"{name}.{WAS}", kind)
    if was == kind or was not in members:
        return {"type": kind, **_group(schema, name, typed)}
    typed_before = _group(
        node_of(members[was]).schema, name, typed
    )  # by its own defaults: those of the other are no choice
    return {"type": kind, **{key: value for key, value in typed_before.items() if key in properties(schema)}}


def _items(node: Node, name: str, typed: Typed) -> Any:
    """Those of the places in which something was chosen."""
    if name in typed:
        return _leaf(node, typed[name])
    item, places = node_of(item_of(node.schema)), 0
    while f"{name}.{places}.type" in typed or f"{name}.{places}.{ON}" in typed:
        places += 1
    if not places:
        return LEFT_OUT
    found = [_typed(item, f"{name}.{place}", typed) for place in range(places)]
    return [one for one in found if one is not None and one is not LEFT_OUT]


def _leaf(node: Node, text: str) -> Any:
    text = text.replace("\r\n", "\n")
    if not text.strip() and node.kind != "lines":
        return None if node.is_nullable else LEFT_OUT
    match node.kind:
        case "integer":
            return _number(text, int)
        case "number":
            return _number(text, float)
        case "boolean":
            return {"true": True, "false": False}.get(text, text)
        case "lines":
            return _lines(node, text)
        case "json" | "items":
            return _json(text)
        case _:
            return text


def _number(text: str, kind: type[int] | type[float]) -> int | float | str:
    try:
        found = kind(text)
    except ValueError:
        return text
    return found if abs(found) < float("inf") else text  # what JSON cannot say


def _lines(node: Node, text: str) -> Any:
    """An item a line; where the field may be something else than a list, all of it may be one object."""
    if "items" not in node.schema and text.lstrip().startswith("{") and isinstance(whole := _json(text), dict):
        return whole
    is_text = node.schema.get("items", {}).get("type", "string") == "string" or "discriminator" in node.schema["items"]
    items = [_item(line.strip(), is_text) for line in text.split("\n") if line.strip()]
    if items or not node.is_nullable:
        return items if items or "items" in node.schema else LEFT_OUT
    return None


def _item(line: str, is_text: bool) -> Any:
    return _json(line) if not is_text or line.startswith(OPENS_JSON) else line


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text.strip()
