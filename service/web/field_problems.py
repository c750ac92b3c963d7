"""Mistakes that the API names by their place in a request, at the fields of the form that it was made of."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from service.web.asking import RefusedError

ELSEWHERE = ""
OF_A_FORM = {
    "idempotency_key_reused": "This form was sent before, with something else in it. Send it again to have this as well.",
    "idempotency_in_flight": "What this form was sent for first is still being made. Send it again in a moment.",
}
"""What the API says of the key of a request, for whoever has seen none."""


def by_field(errors: list[dict[str, Any]], fields: Mapping[str, str]) -> dict[str, list[str]]:
    """What is wrong, by field; `fields` says which one holds a pointer and all below it. What none holds is under `ELSEWHERE`."""
    found: dict[str, list[str]] = {}
    for error in errors:
        pointer = error.get("pointer", "")
        holding = [place for place in fields if pointer == place or pointer.startswith(f"{place}/")]
        name = fields[max(holding, key=len)] if holding else ELSEWHERE
        found.setdefault(name, []).append(error["message"])
    return found


def told(refused: RefusedError) -> list[dict[str, Any]]:
    """The mistakes of a refused request; of one that names none, what it says."""
    code = refused.problem.get("code", "")
    if refused.errors and code not in OF_A_FORM:
        return refused.errors
    return [{"pointer": "", "code": code, "message": OF_A_FORM.get(code, refused.problem.get("detail", ""))}]


def number_or_text(text: str) -> Any:
    """What was typed as the number that it is; else the text, so that the API says what it expects."""
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if isfinite(number) else text
    return text
