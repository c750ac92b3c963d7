"""Rows of CSV and TSV files. Everything in them is text; the first line has the names of the columns."""

import csv
from collections.abc import Iterator, Mapping

from alignment_core.datasets.files import FileTree
from alignment_core.errors import DataError


def delimited_rows(files: FileTree, name: str) -> Iterator[Mapping[str, object] | DataError]:
    """The rows of a file; a row with too few or too many cells is a `DataError` in its place. Blank lines do not count.

    Raises `DataError("unreadable_file")` for text that is not UTF-8, a column that is there twice, and a quote without end.
    """
    lines = _lines(files, name)
    header_line = next(lines, "")
    delimiter = _delimiter(name, header_line)
    header = [column.strip() for column in next(csv.reader([header_line], delimiter=delimiter), [])]
    if repeated := sorted({column for column in header if header.count(column) > 1}):
        raise DataError("unreadable_file", f"{name}: column {repeated[0]!r} is there more than once")
    try:
        for cells in csv.reader(lines, delimiter=delimiter, strict=True):
            if cells:
                yield _row(header, cells)
    except csv.Error as error:
        raise DataError("unreadable_file", f"{name} is no well-formed CSV: {error}; is a quote left open?") from error


def _row(header: list[str], cells: list[str]) -> Mapping[str, object] | DataError:
    if len(cells) == len(header):
        return dict(zip(header, cells, strict=True))
    return DataError(
        "invalid_csv",
        f"{len(cells)} cells; expected {len(header)}, as the header has: a cell with the separator needs quotes",
    )


def _lines(files: FileTree, name: str) -> Iterator[str]:
    for number, line in enumerate(files.lines(name), 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                "unreadable_file", f"{name}, line {number}, is not in UTF-8 ({error.reason}); save the file as UTF-8"
            ) from error


def _delimiter(name: str, header: str) -> str:
    """A tab in `.tsv`; a comma, or the semicolon or tab of spreadsheets whose language needs the comma for numbers."""
    if name.lower().endswith(".tsv"):
        return "\t"
    return max(",;\t", key=header.count)
