"""No truth value where a number is asked for, and no number where a truth value is.

Pydantic takes `true` for 1 and 0 for `false`; JSON Schema, and whoever reads what a run was made with, does not. A number
written as text stays one: YAML reads `1e-4` as text.
"""

from collections.abc import Callable
from typing import Any, cast

from pydantic_core import CoreSchema, PydanticKnownError

NESTED = ("schema", "fields", "choices", "items_schema", "keys_schema", "values_schema", "steps", "definitions")


def _refusing_bool(code: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if isinstance(value, bool):
            raise PydanticKnownError(cast(Any, code))
        return value

    return check


CHECKS = {"int": _refusing_bool("int_type"), "float": _refusing_bool("float_type")}


def with_exact_kinds(schema: CoreSchema) -> CoreSchema:
    """What a model is checked by, with every number and truth value in it as above."""
    return _exact(schema)


def _exact(node: Any) -> Any:
    match node:
        case list() | tuple():
            return type(node)(map(_exact, node))
        case {"type": "bool"}:
            return {**node, "strict": True}
        case {"type": "int" | "float" as kind}:
            return {
                "type": "function-before",
                "function": {"type": "no-info", "function": CHECKS[kind]},
                "schema": node,
            }
        case {"type": "function-before", "function": {"function": check}} if check in CHECKS.values():
            return node  # a model within a model has been here before
        case {"type": "union", "choices": choices}:
            return {**node, "choices": [_exact_choice(one) for one in choices]}
        case {"type": str()}:
            return {name: _exact(inner) if name in NESTED else inner for name, inner in node.items()}
        case dict():  # names and what is behind each: fields, or the choices of a tagged union
            return {name: _exact(inner) for name, inner in node.items()}
    return node


def _exact_choice(choice: Any) -> Any:
    """One of a union, under the name that mistakes in it have had."""
    match choice:
        case {"type": "int" | "float" as kind}:
            return _exact(choice), kind
    return _exact(choice)
