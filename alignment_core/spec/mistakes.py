"""What is wrong in a spec, as sentences that say what to do: pydantic's errors, told as the service and a local run tell them."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from alignment_core.spec.prompts import PROMPT_SET_ID
from alignment_core.spec.rewards import PRINTED_ASCII
from alignment_core.spec.schema import description_at, fields_at, kinds_at, places_named
from alignment_core.spec.sources import COMMIT, DATASET_ID, NAME, REPO_ID, WITHOUT_NUL
from alignment_core.spec.training import MODULE

MOST = 100  # more than anybody mends at once
LONGEST_NAME = 100
LONGEST_GUESSED = 64  # no field has a longer name

IN_WORDS = {
    NAME: "expected a name: lower-case letters, digits, '.', '_' and '-', at most 64 of them, a letter or digit first",
    PROMPT_SET_ID: "expected the id of an uploaded prompt set: ps_ and 26 lower-case letters and digits",
    DATASET_ID: "expected the id of an uploaded dataset: ds_ and 26 lower-case letters and digits",
    COMMIT: "expected the full commit hash, 40 hex digits: a branch or tag may move between two runs. "
    "`git ls-remote https://huggingface.co/OWNER/NAME` lists what they stand for now",
    REPO_ID: "expected the OWNER/NAME of a repository, as in the address of its page",
    WITHOUT_NUL: "expected text without the character NUL",
    PRINTED_ASCII: "expected https://HOST[:PORT]/PATH in ASCII, without spaces",
    MODULE: "expected the last parts of a module's name, such as to_q or to_out.0",
}
CALLED = {
    "gpu": "cuda",
    "lr": "learning_rate",
    "epochs": "steps",
    "max_steps": "steps",
}  # elsewhere, and what it is here
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "an object",
    "mapping": "an object",
    "model": "an object",
}
BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
    "multiple_of": ("multiple_of", "a multiple of"),
}


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong. `pointer` is a JSON pointer into what was given; `code` is pydantic's name of the rule."""

    pointer: str
    code: str
    message: str


def mistakes(errors: Sequence[Mapping[str, Any]], given: Any, model: Any = None) -> list[Mistake]:
    """Pydantic's errors about `given`, which was to be a `model`: at most a hundred. No value is echoed in full."""
    errors = [found for found in errors if not _only_follows(found)]
    if len(errors) <= MOST:
        return [_mistake(found, given, model) for found in errors]
    left = Mistake("", "more_errors", f"and {len(errors) - MOST + 1} more; these are the first")
    return [*(_mistake(found, given, model) for found in errors[: MOST - 1]), left]


def in_sentences(error: ValidationError, given: Any, model: Any) -> str:
    """The same as text, a line each."""
    found = mistakes(error.errors(include_url=False), given, model)
    return "\n".join(f"{one.pointer}: {one.message}" if one.pointer else one.message for one in found)


def _only_follows(found: Mapping[str, Any]) -> bool:
    """Whether this is a list that has too few entries only since wrong ones do not count."""
    given = found.get("input")
    return found["type"] == "too_short" and isinstance(given, list | tuple) and len(given) >= found["ctx"]["min_length"]


def _mistake(found: Mapping[str, Any], given: Any, model: Any) -> Mistake:
    location, kind = found["loc"], found["type"]
    if kind == "string_unicode":  # of a field's own name pydantic says so of the object
        location = (*location, found["input"])
    message = sentence(found, model)
    if places := found.get("ctx", {}).get("places"):
        return Mistake(_pointer_of_rule(location, places, given), kind, message)
    return Mistake(pointer(location, given, last_is_missing=kind == "missing"), kind, message)


# --- where ---------------------------------------------------------------------------------------------------------


def pointer(location: Sequence[int | str], given: Any, *, last_is_missing: bool = False) -> str:
    """JSON pointer of pydantic's location in `given`, without the union tags that pydantic puts between the keys."""
    value, parts = given, []
    for part in location:
        match value, part:
            case dict(), _ if part in value:
                value = value[part]
            case list(), int() if part < len(value):
                value = value[part]
            case _:
                continue  # a tag of a union, not a key
        parts.append(part)
    return as_pointer([*parts, *(location[-1:] if last_is_missing else [])])


def as_pointer(parts: Sequence[int | str]) -> str:
    """RFC 6901, with names that are too long to be one cut and half surrogate pairs written out."""
    return "".join("/" + shown(str(part)).replace("~", "~0").replace("/", "~1") for part in parts)


def _pointer_of_rule(location: Sequence[int | str], places: Sequence[str], given: Any) -> str:
    """The first place that was written down; else the likeliest, which is then missing."""
    here = pointer(location, given)
    paths = [_steps(place) for place in places]
    for path in paths:
        there = pointer([*location, *path], given)
        if there.count("/") == here.count("/") + len(path):
            return there
    return here + as_pointer(paths[0])


def _steps(place: str) -> list[int | str]:
    return [int(part) if part.isdecimal() else part for part in place.split(".")]


# --- what ----------------------------------------------------------------------------------------------------------


def sentence(found: Mapping[str, Any], model: Any = None) -> str:
    """What one of pydantic's errors says to do; with the `model`, also what the fields mean and which there are."""
    kind, context, location = found["type"], found.get("ctx", {}), found["loc"]
    expected, _, problem = kind.rpartition("_")
    match kind:
        case "extra_forbidden":
            return _unknown_field(str(location[-1]), location, model)
        case "missing":
            return _missing(location, model)
        case "string_pattern_mismatch":
            return IN_WORDS.get(context["pattern"], f"expected text that matches {context['pattern']}")
        case "string_unicode":
            return "expected text in Unicode, and this holds half a surrogate pair"
        case "string_too_long" | "string_too_short" | "too_long" | "too_short":
            return _wrong_length(kind, context, found.get("input"))
        case "literal_error":
            return _not_among(context["expected"], found.get("input"))
        case "finite_number":
            return "expected a finite number"
        case "int_parsing_size":
            return "the number is too large"
        case "int_from_float":
            return "expected a whole number"
        case _ if kind in BOUNDS:
            name, words = BOUNDS[kind]
            why = description_at(model, location)
            return f"must be {words} {context[name]:g}" + (f". {why}" if why else "")
        case _ if problem in ("type", "parsing") and expected in KINDS:
            return _wrong_type(KINDS[expected], found.get("input"))
        case _:
            return _safe(str(found["msg"]).removeprefix("Value error, "))


def _unknown_field(name: str, location: Sequence[int | str], model: Any) -> str:
    """Names the nearest of the known fields, where else a field of this name is, or all that there are."""
    known = fields_at(model, location[:-1])
    name = CALLED.get(name, name)
    guessable = len(name) <= LONGEST_GUESSED
    if guessable and (elsewhere := places_named(model, name)):
        return f"unknown field here; there is {' and '.join(elsewhere[:3])}"
    if guessable and (near := difflib.get_close_matches(name, known, n=1)):
        return f"unknown field; did you mean {near[0]!r}?"
    return f"unknown field; expected one of {', '.join(sorted(known))}" if known else "unknown field"


def _missing(location: Sequence[int | str], model: Any) -> str:
    if kinds := kinds_at(model, location):
        return f"is missing: an object whose `type` is one of {', '.join(kinds)}"
    why = description_at(model, location)
    return f"is missing. {why}" if why else "is missing"


def _wrong_length(kind: str, context: Mapping[str, Any], given: Any) -> str:
    bound = f"at most {context['max_length']}" if kind.endswith("long") else f"at least {context['min_length']}"
    what = "characters" if kind.startswith("string") else "entries"
    what = what if not bound.endswith(" 1") else {"characters": "character", "entries": "entry"}[what]
    has = f"; there are {len(given)}" if isinstance(given, str | list | tuple | dict) else ""
    return f"expected {bound} {what}{has}"


def _not_among(expected: str, given: Any) -> str:
    values = [value.strip("'") for value in expected.replace(" or ", ", ").split(", ")]
    guessable = isinstance(given, str) and len(given) < LONGEST_GUESSED
    near = difflib.get_close_matches(CALLED.get(given, given), values, n=1) if guessable else []
    return f"expected {expected}" + (f"; did you mean {near[0]!r}?" if near else "")


def _wrong_type(expected: str, given: Any) -> str:
    if expected == "a list" and isinstance(given, str):
        return 'expected a list, and this is text: put it in brackets, ["..."]'
    match given:
        case None:
            found = "null"
        case bool():
            found = "true or false"
        case int() if expected == "a number":
            return "the number is too large"
        case int() | float():
            found = "a number"
        case str():
            found = "text"
        case list() | tuple():
            found = "a list"
        case dict():
            found = "an object"
        case _:
            found = type(given).__name__
    return f"expected {expected}, not {found}"


def shown(name: str) -> str:
    """The name as an answer may carry it."""
    return _safe(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}...")


def _safe(text: str) -> str:
    """The text in Unicode: what JSON may carry is not all of it."""
    return text.encode("utf-8", "backslashreplace").decode()
