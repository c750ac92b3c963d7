"""Rows of JSON: an object a line, or an array of objects in one file, which is read as it comes and never held whole."""

import codecs
import json
from collections.abc import Iterator, Mapping

from alignment_core.datasets.files import MAX_LINE_BYTES, FileTree
from alignment_core.errors import DataError

SPACE = " \t\n\r"
NOT_AN_OBJECT = "expected an object with a value for each column"


def json_rows(files: FileTree, name: str) -> Iterator[Mapping[str, object] | DataError]:
    """The rows of a file; a row that is none is a `DataError` in its place. Blank lines do not count."""
    if name.lower().endswith(".json") and _starts_an_array(files, name):
        yield from _array(files, name)
        return
    for line in files.lines(name):
        if line.strip():
            yield _line(line)


def _line(line: bytes) -> Mapping[str, object] | DataError:
    try:
        values = json.loads(line.decode("utf-8-sig"))  # editors begin files so, and files are put one behind the other
    except (ValueError, RecursionError) as error:
        return DataError("invalid_json", f"not JSON in UTF-8: {error}")
    return _object(values)


def _object(values: object) -> Mapping[str, object] | DataError:
    if isinstance(values, dict):
        return values
    return DataError("invalid_json", f"{type(values).__name__}; {NOT_AN_OBJECT}")


def _starts_an_array(files: FileTree, name: str) -> bool:
    return (
        next((text for chunk in files.chunks(name) if (text := chunk.removeprefix(codecs.BOM_UTF8).strip())), b"")[:1]
        == b"["
    )


def _array(files: FileTree, name: str) -> Iterator[Mapping[str, object] | DataError]:
    """The objects of an array; a syntax error ends the file, as nothing tells where the next object starts."""
    decoder, text, start = json.JSONDecoder(), "", -1
    for more in _decoded(files, name):
        text = text[max(start, 0) :] + more
        start = 0 if start >= 0 else text.find("[") + 1
        while True:
            start = _skip(text, start)
            if start == len(text):
                break
            if text[start] == "]":
                return
            try:
                values, end = decoder.raw_decode(text, start)
            except (ValueError, RecursionError) as error:
                if len(text) - start > MAX_LINE_BYTES or not more or isinstance(error, RecursionError):
                    raise DataError("unreadable_file", f"{name} is no well-formed JSON array: {error}") from error
                break
            start = end
            yield _object(values)
    raise DataError("unreadable_file", f"{name} ends before its array does")


def _skip(text: str, start: int) -> int:
    while start < len(text) and text[start] in SPACE + ",":
        start += 1
    return start


def _decoded(files: FileTree, name: str) -> Iterator[str]:
    """The text in parts, the last of them empty."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    try:
        for chunk in files.chunks(name):
            if text := decoder.decode(chunk):
                yield text
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise DataError("unreadable_file", f"{name} is not in UTF-8: {error}") from error
    yield ""
