"""Prompts in a column of CSV or TSV."""

import csv
from collections.abc import Iterator
from typing import Literal, TextIO

from alignment_core.prompt_files import limits
from alignment_core.prompt_files.columns import column_among
from alignment_core.prompt_files.results import BadRow, PromptsFile, Rows, refused


def table_of(form: Literal["csv", "tsv"], text: TextIO, delimiter: str, column: str | None) -> PromptsFile:
    quoting = csv.QUOTE_MINIMAL if form == "csv" else csv.QUOTE_NONE
    table = csv.reader(_bounded(text), delimiter=delimiter, quoting=quoting, strict=form == "csv")
    try:
        header = next(table, [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise refused("not_a_table", f"its first row cannot be read: {error}") from error
    found = column_among(header, column)
    return PromptsFile(form, found, _cells(table, header.index(found)))


def _bounded(text: TextIO) -> Iterator[str]:
    """Lines with their ends; a line of nothing but commas would be more cells than fit into memory."""
    while line := text.readline(limits.LONGEST_LINE_BYTES):
        if len(line) == limits.LONGEST_LINE_BYTES and not line.endswith(("\n", "\r")):
            raise csv.Error(f"it has a line of {limits.LONGEST_LINE_BYTES} characters or more")
        yield line


def _cells(table: Iterator[list[str]], place: int) -> Rows:
    number = 0
    while True:
        number += 1
        try:
            row = next(table, None)
        except UnicodeDecodeError:
            yield number, BadRow(None, "not_utf8", f"what follows row {number - 1} is not UTF-8")
            return
        except csv.Error as error:
            yield number, BadRow(None, "not_a_table", f"row {number} cannot be read: {error}")
            return
        if row is None:
            return
        if row and place >= len(row):
            yield (
                number,
                BadRow(number, "cell_missing", f"has {len(row)} cells, and the prompts are in cell {place + 1}"),
            )
        else:
            yield number, row[place] if row else ""
