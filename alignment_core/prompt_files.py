"""Files of prompts, read row by row: text, jsonl, JSON, CSV, TSV, parquet. No torch; pyarrow for parquet alone.

A set has each prompt once, in the order of the file. Empty rows and repeats are left out and told; what cannot be a prompt
is an error with the number of its row. The same prompts have the same hash in whatever form they came.
"""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Literal, TextIO, get_args

from pydantic import BaseModel, ConfigDict, Field

PromptsFormat = Literal["text", "jsonl", "json", "csv", "tsv", "parquet"]

SUFFIXES: dict[str, PromptsFormat] = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
COLUMNS = ("prompt", "caption", "text", "prompts", "captions")  # looked for in this order, in any case of letters
MOST_PROMPTS = 1_000_000
MOST_ROWS = 5_000_000  # empty ones and repeats included: a few bytes of parquet may stand for billions
LONGEST_PROMPT = 2000  # characters, as in a spec
LONGEST_LINE_BYTES = 1 << 20
LARGEST_JSON_BYTES = 16 << 20  # which is parsed whole
LARGEST_COLUMN_BYTES = 512 << 20  # of a parquet file, once unpacked
MOST_TOLD = 100  # errors
MOST_ROWS_NAMED = 20
BATCH_ROWS = 1024


class PromptsReport(BaseModel):
    """What a file of prompts held."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: PromptsFormat
    column: str | None = Field(description="The column or key that was read; null for text and for lists of strings.")
    num_rows: int
    num_prompts: int = Field(description="Different prompts that are not empty: those of the set.")
    num_duplicates: int = Field(description="Rows that repeat an earlier prompt, which are left out.")
    duplicate_rows: list[int] = Field(description="The first of them, counted from 1.")
    num_empty: int = Field(description="Rows without a prompt, which are left out.")
    empty_rows: list[int] = Field(description="The first of them, counted from 1.")
    sha256: str = Field(description="SHA-256 of the canonical JSON list of the prompts.")


@dataclass(frozen=True)
class BadRow:
    """Why a row, counted from 1, or with None the file, cannot be read."""

    row: int | None
    code: str
    message: str

    def __str__(self) -> str:
        return self.message if self.row is None else f"row {self.row}: {self.message}"


class PromptsRefused(ValueError):  # noqa: N818 - a state of affairs, read as one
    """The file is no set of prompts; `problems` says why, at most a hundred times."""

    def __init__(self, problems: list[BadRow]) -> None:
        super().__init__("; ".join(map(str, problems[:3])))
        self.problems = problems


Row = tuple[int, str | BadRow]
Rows = Iterator[Row]


@dataclass(frozen=True)
class PromptsFile:
    """An open file of prompts: the column that is read, and its rows."""

    format: PromptsFormat
    column: str | None
    rows: Rows


def read_prompts(
    path: Path, filename: str, keep: Callable[[str], object], *, column: str | None = None
) -> PromptsReport:
    """Give `keep` each prompt of the set in turn; `PromptsRefused` after it has read as far as it makes sense.

    `filename` is what its owner calls the file at `path`; its suffix says what it is.
    """
    with path.open("rb") as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        opened = _open(file, text, filename, column)
        return _gathered(opened, keep)


def line_of(prompt: str) -> bytes:
    """A prompt as a line of the jsonl file that a set is kept as."""
    return json.dumps({"prompt": prompt}, ensure_ascii=False).encode() + b"\n"


# --- the set -------------------------------------------------------------------------------------------------------


@dataclass
class _Rows:
    """How many rows of a kind there are, and which are the first."""

    num: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, row: int) -> None:
        self.num += 1
        if self.num <= MOST_ROWS_NAMED:
            self.first.append(row)


@dataclass
class _Gathered:
    """The set so far: what it has is known by short hashes, so that a million prompts fit into memory."""

    keep: Callable[[str], object]
    problems: list[BadRow] = field(default_factory=list)
    seen: set[bytes] = field(default_factory=set)
    empty: _Rows = field(default_factory=_Rows)
    repeated: _Rows = field(default_factory=_Rows)
    digest: Any = field(default_factory=lambda: hashlib.sha256(b"["))
    num_rows: int = 0

    @property
    def has_enough(self) -> bool:
        """Whether reading on would tell nothing more."""
        return len(self.problems) == MOST_TOLD or any(one.row is None for one in self.problems)

    def add(self, row: int, found: str | BadRow) -> None:
        self.num_rows = max(self.num_rows, row)
        if row > MOST_ROWS:
            self.problems.append(BadRow(None, "too_many_rows", f"there are more than {MOST_ROWS:,} rows"))
            return
        bad = found if isinstance(found, BadRow) else _unfit(row, found)
        if bad is not None:
            self.problems.append(bad)
            return
        assert isinstance(found, str)
        mark = hashlib.blake2b(found.encode(), digest_size=16).digest()
        if not found.strip():
            self.empty.add(row)
        elif mark in self.seen:
            self.repeated.add(row)
        elif len(self.seen) == MOST_PROMPTS:
            self.problems.append(BadRow(None, "too_many_prompts", f"there are more than {MOST_PROMPTS:,} prompts"))
        else:
            self._take(mark, found)

    def _take(self, mark: bytes, prompt: str) -> None:
        self.digest.update((b"," if self.seen else b"") + json.dumps(prompt, ensure_ascii=False).encode())
        self.seen.add(mark)
        if not self.problems:
            self.keep(prompt)


def _gathered(opened: PromptsFile, keep: Callable[[str], object]) -> PromptsReport:
    found = _Gathered(keep)
    for row, one in opened.rows:
        found.add(row, one)
        if found.has_enough:
            break
    if not (found.seen or found.problems):
        raise _refused("no_prompts", "there is no prompt in it")
    if found.problems:
        raise PromptsRefused(found.problems)
    found.digest.update(b"]")
    return PromptsReport(
        format=opened.format,
        column=opened.column,
        num_rows=found.num_rows,
        num_prompts=len(found.seen),
        num_duplicates=found.repeated.num,
        duplicate_rows=found.repeated.first,
        num_empty=found.empty.num,
        empty_rows=found.empty.first,
        sha256=found.digest.hexdigest(),
    )


def _unfit(row: int, prompt: str) -> BadRow | None:
    if len(prompt) > LONGEST_PROMPT:
        return BadRow(row, "prompt_too_long", f"has {len(prompt)} characters, and a prompt at most {LONGEST_PROMPT}")
    if "\0" in prompt:
        return BadRow(row, "prompt_with_nul", "holds the character NUL")
    try:
        prompt.encode()
    except UnicodeEncodeError:
        return BadRow(row, "prompt_not_unicode", "holds half a surrogate pair, which is no text")
    return None


# --- the forms -----------------------------------------------------------------------------------------------------


def _open(file: BinaryIO, text: TextIO, filename: str, column: str | None) -> PromptsFile:
    match _format_of(file, filename):
        case "text":
            if column is not None:
                raise _refused("column_unknown", "a file of text has a prompt a line and no columns")
            return PromptsFile("text", None, _lines(file))
        case "jsonl":
            return _of_objects("jsonl", _parsed(_lines(file)), column)
        case "json":
            return _of_objects("json", iter(enumerate(_json_list(file), 1)), column)
        case "csv":
            return _table("csv", text, ",", column)
        case "tsv":
            return _table("tsv", text, "\t", column)
        case "parquet":
            return _parquet(file, column)


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
        raise _refused("unknown_format", f"{filename!r} {why}: {known}")
    return found


def _refused(code: str, message: str) -> PromptsRefused:
    return PromptsRefused([BadRow(None, code, message)])


def _lines(file: BinaryIO) -> Rows:
    """Lines without their ends; a longer one than any may be is not held."""
    number, at_start = 0, True
    while line := file.readline(LONGEST_LINE_BYTES):
        number += 1
        if not line.endswith(b"\n") and len(line) == LONGEST_LINE_BYTES:
            while (rest := file.readline(LONGEST_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield number, BadRow(number, "line_too_long", f"is longer than {LONGEST_LINE_BYTES} bytes")
            continue
        try:
            text = line.decode("utf-8-sig" if at_start else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            yield number, BadRow(number, "not_utf8", f"is not UTF-8 at its byte {error.start + 1}")
        else:
            yield number, text
        at_start = False


def _parsed(lines: Rows) -> Iterator[tuple[int, Any]]:
    """The JSON value of every line; an empty line is an empty prompt."""
    for number, line in lines:
        if isinstance(line, BadRow) or not line.strip():
            yield number, line.strip() if isinstance(line, str) else line
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, BadRow(number, "not_json", f"is no JSON: {error}")


def _json_list(file: BinaryIO) -> list[Any]:
    content = file.read(LARGEST_JSON_BYTES + 1)
    if len(content) > LARGEST_JSON_BYTES:
        raise _refused("json_too_large", f"a list in JSON has at most {LARGEST_JSON_BYTES} bytes here: write jsonl")
    try:
        found = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise _refused("not_json", f"is no JSON: {error}") from error
    if not isinstance(found, list):
        raise _refused("not_a_list", "expected a JSON list of strings or of objects")
    return found


def _of_objects(form: PromptsFormat, values: Iterator[tuple[int, Any]], column: str | None) -> PromptsFile:
    """Strings, or objects of which one key is read: the first that is not empty says which."""
    begun = list(_up_to_first(values))
    key = None
    if begun and isinstance(begun[-1][1], dict):
        key = _column_among(list(begun[-1][1]), column)
    return PromptsFile(form, key, ((row, _of_object(row, value, key)) for row, value in chain(begun, values)))


def _up_to_first(values: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """Bounded, since it is held: what begins so badly is told by its first rows."""
    for row, value in islice(values, BATCH_ROWS):
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


def _table(form: Literal["csv", "tsv"], text: TextIO, delimiter: str, column: str | None) -> PromptsFile:
    quoting = csv.QUOTE_MINIMAL if form == "csv" else csv.QUOTE_NONE
    table = csv.reader(_bounded(text), delimiter=delimiter, quoting=quoting, strict=form == "csv")
    try:
        header = next(table, [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise _refused("not_a_table", f"its first row cannot be read: {error}") from error
    found = _column_among(header, column)
    return PromptsFile(form, found, _cells(table, header.index(found)))


def _bounded(text: TextIO) -> Iterator[str]:
    """Lines with their ends; a line of nothing but commas would be more cells than fit into memory."""
    while line := text.readline(LONGEST_LINE_BYTES):
        if len(line) == LONGEST_LINE_BYTES and not line.endswith(("\n", "\r")):
            raise csv.Error(f"it has a line of {LONGEST_LINE_BYTES} characters or more")
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


def _parquet(file: BinaryIO, column: str | None) -> PromptsFile:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise _refused("parquet_unsupported", "parquet needs pyarrow, which is not installed here") from error
    try:
        schema = parquet.read_schema(file)
        found = _column_among([field.name for field in schema if _is_text(field.type)], column)
        opened = parquet.ParquetFile(file, read_dictionary=[found])
        _refuse_large(opened.metadata, found)
    except MemoryError:
        raise
    except (arrow.ArrowException, OSError) as error:
        raise _refused("not_parquet", f"cannot be read as parquet: {error}") from error
    return PromptsFile("parquet", found, _values(opened, found))


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    text = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_string(text) or types.is_large_string(text)


def _refuse_large(metadata: Any, column: str) -> None:
    """A few bytes may unpack to more than a machine holds, so what they say of it is looked at first."""
    if metadata.num_rows > MOST_ROWS:
        raise _refused("too_many_rows", f"there are more than {MOST_ROWS:,} rows")
    groups = (metadata.row_group(index) for index in range(metadata.num_row_groups))
    chunks = (group.column(index) for group in groups for index in range(group.num_columns))
    size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == column)
    if size > LARGEST_COLUMN_BYTES:
        raise _refused("column_too_large", f"{column!r} unpacks to {size} bytes; at most {LARGEST_COLUMN_BYTES}")


def _values(opened: Any, column: str) -> Rows:
    """Of a dictionary no more is unpacked than a batch names, and that once: a row may repeat a long text a million times."""
    import pyarrow as arrow

    number = 0
    try:
        for batch in opened.iter_batches(batch_size=BATCH_ROWS, columns=[column]):
            values = batch.column(0)
            for text in _unpacked(values) if isinstance(values, arrow.DictionaryArray) else values.to_pylist():
                number += 1
                yield number, text or ""
    except MemoryError:  # which arrow's own is too, and which says nothing of the file's form
        raise
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        yield number, BadRow(None, "not_parquet", f"what follows row {number} cannot be read: {error}")


def _unpacked(values: Any) -> Iterator[str | None]:
    named = values.indices.unique().drop_null()
    texts = dict(zip(named.to_pylist(), values.dictionary.take(named).to_pylist(), strict=True))
    return (None if place is None else texts[place] for place in values.indices.to_pylist())


def _column_among(names: list[str], wanted: str | None) -> str:
    """The column that was named, or the first of the usual names."""
    if wanted is not None:
        if wanted in names:
            return wanted
        raise _refused("column_unknown", f"there is no column {wanted!r} of text; there are {_shown(names)}")
    by_name = {name.strip().lower(): name for name in reversed(names)}
    for usual in COLUMNS:
        if usual in by_name:
            return by_name[usual]
    if not names:
        raise _refused("column_unknown", "there is no column of text in it")
    raise _refused("column_unknown", f"which column holds the prompts? Say one of {_shown(names)}")


def _shown(names: list[str]) -> str:
    return ", ".join(repr(name[:40]) for name in names[:20]) or "none"


assert set(SUFFIXES.values()) == set(get_args(PromptsFormat))
