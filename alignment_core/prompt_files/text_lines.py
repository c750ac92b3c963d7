"""Prompts in lines of text, and in JSON: a value a line, or a list."""

import json
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, BinaryIO

from alignment_core.prompt_files import limits
from alignment_core.prompt_files.columns import column_among
from alignment_core.prompt_files.results import BadRow, PromptsFile, PromptsFormat, Rows, refused


def lines(file: BinaryIO) -> Rows:
    """Lines without their ends; a longer one than any may be is not held."""
    number, at_start = 0, True
    while line := file.readline(limits.LONGEST_LINE_BYTES):
        number += 1
        if not line.endswith(b"\n") and len(line) == limits.LONGEST_LINE_BYTES:
            while (rest := file.readline(limits.LONGEST_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, BadRow(number, "line_too_long", f"is longer than {limits.LONGEST_LINE_BYTES} bytes")
            continue
        try:
            text = line.decode("utf-8-sig" if at_start else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            yield number, BadRow(number, "not_utf8", f"is not UTF-8 at its byte {error.start + 1}")
        else:
            yield number, text
        at_start = False


def parsed(lines: Rows) -> Iterator[tuple[int, Any]]:
    """The JSON value of every line; an empty line is an empty prompt."""
    for number, line in lines:
        if isinstance(line, BadRow) or not line.strip():
            yield number, line.strip() if isinstance(line, str) else line
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, BadRow(number, "not_json", f"is no JSON: {error}")


def json_list(file: BinaryIO) -> list[Any]:
    content = file.read(limits.LARGEST_JSON_BYTES + 1)
    if len(content) > limits.LARGEST_JSON_BYTES:
        raise refused(
            "json_too_large", f"a list in JSON has at most {limits.LARGEST_JSON_BYTES} bytes here: write jsonl"
        )
    try:
        found = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise refused("not_json", f"is no JSON: {error}") from error
    if not isinstance(found, list):
        raise refused("not_a_list", "expected a JSON list of strings or of objects")
    return found


def of_objects(form: PromptsFormat, values: Iterator[tuple[int, Any]], column: str | None) -> PromptsFile:
    """Strings, or objects of which one key is read: the first that is not empty says which."""
    begun = list(_up_to_first(values))
    key = None
    if begun and isinstance(begun[-1][1], dict):
        key = column_among(list(begun[-1][1]), column)
    return PromptsFile(form, key, ((row, _of_object(row, value, key)) for row, value in chain(begun, values)))


def _up_to_first(values: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """Bounded, since it is held: what begins so badly is told by its first rows."""
    for row, value in islice(values, limits.BATCH_ROWS):
        yield row, value
        if value != "" and not isinstance(value, BadRow):
            return


def _of_object(number: int, value: Any, key: str | None) -> str | BadRow:
    match value:
        case str() | BadRow():
            return value
        case dict() if key is not None and key in value:
            found = value[key]
            if found is None or isinstance(found, str):
                return found or ""
            return BadRow(number, "not_text", f"{key!r} is no text")
        case dict() if key is not None:
            return BadRow(number, "key_missing", f"has no {key!r}")
    return BadRow(number, "not_text", "expected text, as in the first row" if key is None else f"has no {key!r}")
