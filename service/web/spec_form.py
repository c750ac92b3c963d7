"""A spec as the controls of a form, made from the JSON Schema of its method: what each is called, may hold, and is for."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from alignment_core.spec.counted import counted
from service.web.spec_control import LEFT_EMPTY, TITLES, Control, chosen_about
from service.web.spec_schema import (
    BY_NAME,
    ON,
    SET,
    Kind,
    Node,
    Schema,
    choices,
    filled,
    item_of,
    member,
    node_of,
    properties,
    spec_schema,
)

Offers = Mapping[str, Sequence[tuple[str, str]]]
"""What may stand at a pointer, as values and what people call them: of the catalog and the project, which no schema knows. At the pointer
of lines the prompt sets that may stand for them, and under `LOCAL_PATHS` something where paths on the server may be named."""

LOCAL_PATHS = "local paths"

BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
SAYS_ALL = ("catalog", "stored")  # what they are called in the form
ON_THE_SERVER = ("local", "single_file")
OPENS_JSON = ("{", "[", '"')


def controls_of(spec: Mapping[str, Any], offers: Offers) -> list[Control]:
    """Of a whole spec: a group or a control for each of its fields, in their order."""
    return _children(spec_schema(), (), spec, offers)


def _children(schema: Schema, path: tuple[str, ...], value: Mapping[str, Any], offers: Offers) -> list[Control]:
    required = schema.get("required", ())
    return [
        _control(one, (*path, name), value[name] if name in value else one.get("default"), offers, name in required)
        for name, one in properties(schema).items()
        if "const" not in one
    ]


def _control(schema: Schema, path: tuple[str, ...], value: Any, offers: Offers, is_required: bool) -> Control:
    node = node_of(schema)
    common: dict[str, Any] = {
        "path": path,
        "about": _about(schema, node),
        "is_nullable": node.is_nullable,
        "is_required": is_required,
        "is_changed": is_required or filled(schema, value) != filled(schema, schema.get("default")),
    }
    match node.kind:
        case "group":
            children = _children(node.schema, path, value if isinstance(value, Mapping) else {}, offers)
            return Control(kind="group", children=children, is_on=value is not None, **common)
        case "choice":
            return _choice(node, value, offers, common)
        case "items" if isinstance(value, list | None):
            return _items(node, value or [], offers, {**common, "limits": _limits(node, schema)})
        case "items":  # what is no list stays as it is, as JSON
            return _leaf(node._replace(kind="json"), value, offers, common)
        case _:
            return _leaf(node, value, offers, {**common, "limits": _limits(node, schema)})


def _about(schema: Schema, node: Node) -> str:
    """What it is for; of a group the first paragraph of what is written about it."""
    about = schema.get("description") or (node.schema.get("description", "") if node.kind != "choice" else "")
    return _first_paragraph(about)


def _items(node: Node, value: Sequence[Any], offers: Offers, common: dict[str, Any]) -> Control:
    """A control for each, and one in which another may be chosen."""
    places = [*value, None] if len(value) < node.schema.get("maxItems", len(value) + 1) else value
    item = item_of(node.schema)
    children = [_control(item, (*common["path"], str(at)), one, offers, False) for at, one in enumerate(places)]
    return Control(kind="items", children=children, **common)


def _choice(node: Node, value: Any, offers: Offers, common: dict[str, Any]) -> Control:
    found = member(node.schema, value)
    has_paths = offers.get(LOCAL_PATHS) or (isinstance(value, Mapping) and value.get("type") in ON_THE_SERVER)
    known = [name for name in choices(node.schema) if has_paths or name not in ON_THE_SERVER]
    names = [(name, TITLES.get(name, name.replace("_", " "))) for name in known]
    kind = value["type"] if found is not None else BY_NAME if isinstance(value, str) else ""
    if isinstance(value, str):
        names.append((BY_NAME, "by name"))
    if not kind or node.is_nullable:
        names.insert(0, ("", _nothing(node, common["path"], value)))
    if found is not None and isinstance(value, Mapping):
        children = _children(found, common["path"], value, offers)
        about = "" if value["type"] in SAYS_ALL else _first_paragraph(found.get("description", ""))
        common["about"] = " ".join(filter(None, (common["about"], about)))
    elif isinstance(value, str):
        children = [Control((*common["path"], BY_NAME), "text", value, is_required=True)]
    else:
        children = []
    return Control(kind="choice", value=kind, choices=names, children=children, **common)


def _nothing(node: Node, path: tuple[str, ...], value: Any) -> str:
    """What is called what stands for no choice."""
    if path[-1].isdecimal():
        return "leave out" if value is not None else "add one"
    return "none" if node.is_nullable else "choose"


def _leaf(node: Node, value: Any, offers: Offers, common: dict[str, Any]) -> Control:
    text = text_of(node.kind, value)
    pointer = "/" + "/".join(common["path"])
    if offers.get(pointer) and (about := chosen_about(common["path"])):
        common = {**common, "about": about}
    if node.kind == "lines" and pointer in offers:
        picked = value["id"] if isinstance(value, Mapping) and set(value) == {"type", "id"} else ""
        common |= {"picked": picked, "choices": _with(offers[pointer], picked)}
        text = "" if picked else text
    if node.kind in ("text", "select") and (offers.get(pointer) or "enum" in node.schema):
        known = list(offers.get(pointer) or [(str(one), str(one)) for one in node.schema["enum"]])
        if node.is_nullable or not text:
            known.insert(0, ("", "left out" if node.is_nullable else "choose"))
        if text not in dict(known):
            known.append((text, text))
        return Control(kind="select", value=text, choices=known, **common)
    if node.kind == "boolean" and (node.is_nullable or not isinstance(value, bool | None)):
        known = [("", "left out"), ("true", "yes"), ("false", "no")]
        return Control(kind="select", value=text, choices=known, **common)
    left_out = LEFT_EMPTY.get(common["path"], "chosen for you") if node.is_nullable and not text else ""
    return Control(kind=node.kind, value=text, attributes=_attributes(node), placeholder=left_out, **common)


def typed_as(controls: Sequence[Control]) -> dict[str, str]:
    """What the controls send as they stand, by name."""
    found: dict[str, str] = {}
    for one in controls:
        if one.kind == "choice":
            found[f"{one.name}.type"] = one.value
        elif one.kind not in ("group", "items"):
            found[one.name] = one.value
            if one.kind == "lines" and one.choices:
                found[f"{one.name}.{SET}"] = one.picked
        elif one.is_nullable:
            found[f"{one.name}.{ON}"] = "true" if one.is_on else "false"
        found.update(typed_as(one.children))
    return found


def text_of(kind: Kind, value: Any) -> str:
    """The value as it stands in its control; what it has no room for stands there as JSON."""
    if value is None:
        return ""
    if kind == "lines" and isinstance(value, list):
        return "\n".join(map(_line, value))
    return value if isinstance(value, str) and kind != "json" else json.dumps(value, ensure_ascii=False)


def _with(known: Sequence[tuple[str, str]], chosen: str) -> list[tuple[str, str]]:
    """What is offered, and what is chosen already where that is not among it."""
    return [*known, *([(chosen, chosen)] if chosen and chosen not in dict(known) else [])]


def _line(item: Any) -> str:
    is_plain = isinstance(item, str) and item == item.strip() and item.isprintable() and not item.startswith(OPENS_JSON)
    return item if is_plain and item else json.dumps(item, ensure_ascii=False)


def _attributes(node: Node) -> dict[str, str]:
    found = {}
    if node.kind in ("integer", "number"):
        for key, name in (
            ("minimum", "min"),
            ("exclusiveMinimum", "min"),
            ("maximum", "max"),
            ("exclusiveMaximum", "max"),
        ):
            if abs(node.schema.get(key, 0)) < 2**53 and key in node.schema:
                found[name] = f"{node.schema[key]:g}" if isinstance(node.schema[key], float) else str(node.schema[key])
        found["step"] = "any" if node.kind == "number" else str(node.schema.get("multipleOf", 1))
    if node.kind == "text" and "maxLength" in node.schema:
        found["maxlength"] = str(node.schema["maxLength"])
    return found


def _limits(node: Node, outer: Schema) -> str:
    """The range and the default, in words."""
    schema = node.schema
    limits = [f"{words} {_short(schema[key])}" for key, words in BOUNDS.items() if key in schema]
    if "maxItems" in schema:
        limits.append(f"at most {counted(schema['maxItems'], 'line') if node.kind == 'lines' else schema['maxItems']}")
    if "multipleOf" in schema:
        limits.append(f"a multiple of {schema['multipleOf']}")
    default = outer.get("default")
    if default not in (None, [], {}):
        limits.append(f"default {_short(default)}")
    return ", ".join(limits)


def _short(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case int():
            return f"{value:,}" if value < 10**9 else f"{value:.3g}"
        case str():
            return value
        case list():
            return ", ".join(map(_short, value))
        case _:
            return json.dumps(value)


def _first_paragraph(text: str) -> str:
    return " ".join(text.split("\n\n", 1)[0].replace("`", "").split())
