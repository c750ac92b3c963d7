"""A file of prompts, opened as what its bytes and its name say it is."""

import io
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import BinaryIO, TextIO, get_args

from alignment_core.prompt_files.gathering import gathered
from alignment_core.prompt_files.parquet import parquet_of
from alignment_core.prompt_files.results import PromptsFile, PromptsFormat, PromptsReport, refused
from alignment_core.prompt_files.tables import table_of
from alignment_core.prompt_files.text_lines import json_list, lines, of_objects, parsed

SUFFIXES: dict[str, PromptsFormat] = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}

assert set(SUFFIXES.values()) == set(get_args(PromptsFormat))


def read_prompts(
    path: Path, filename: str, keep: Callable[[str], object], *, column: str | None = None
) -> PromptsReport:
    """Give `keep` each prompt of the set in turn; `PromptsRefused` after it has read as far as it makes sense.

    `filename` is what its owner calls the file at `path`; its suffix says what it is.
    """
    with path.open("rb") as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        opened = _open(file, text, filename, column)
        return gathered(opened, keep)


def _open(file: BinaryIO, text: TextIO, filename: str, column: str | None) -> PromptsFile:
    match _format_of(file, filename):
        case "text":
            if column is not None:
                raise refused("column_unknown", "a file of text has a prompt a line and no columns")
            return PromptsFile("text", None, lines(file))
        case "jsonl":
            return of_objects("jsonl", parsed(lines(file)), column)
        case "json":
            return of_objects("json", iter(enumerate(json_list(file), 1)), column)
        case "csv":
            return table_of("csv", text, ",", column)
        case "tsv":
            return table_of("tsv", text, "\t", column)
        case "parquet":
            return parquet_of(file, column)


def _format_of(file: BinaryIO, filename: str) -> PromptsFormat:
    """By its first bytes where these say it, else by its name."""
    start = file.read(4)
    file.seek(0)
    if start == b"PAR1":
        return "parquet"
    found = SUFFIXES.get(PurePath(filename).suffix.lower())
    if found is None or found == "parquet":
        known = ", ".join(SUFFIXES)
        why = "is no parquet file" if found else "has another ending than those that are read"
        raise refused("unknown_format", f"{filename!r} {why}: {known}")
    return found
