"""Preference rows: what every reader turns its files into, and what a reader promises.

A row goes through two stages. An annotation is everything about a row but its images: cheap to read and checked, and a
pair is already the right way round. A row is the annotation with the bytes of its images. What cannot become one is a
`BadRow` that says why; nothing disappears silently. Pairs are here, single images with a like or a dislike in `unpaired`.
"""

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, Self, TypeVar, assert_never

from alignment_core.errors import DataError
from alignment_core.spec.sources import OnBadRow

# The form of the files, or the name of a published schema that was recognised.
DatasetFormat = Literal[
    "parquet",
    "arrow",
    "jsonl",
    "json",
    "csv",
    "tsv",
    "image_folder",
    "pick_a_pic",
    "rapidata",
    "hpdv2",
    "hpdv3",
    "image_reward_db",
]
Severity = Literal["error", "warning"]
Ties = Literal["drop", "keep"]

TIE = 0.5
OF_THE_FILE = ("unreadable_file", "unsafe_archive", "dataset_too_large")  # errors that no row can be blamed for
T = TypeVar("T")
U = TypeVar("U")
MAX_PROMPT_CHARACTERS = 20_000  # far beyond any text encoder: longer text is a broken or hostile file
MAX_GROUP_ID_CHARACTERS = 1000


class Row(Protocol):
    """A row with the encoded bytes of its images; `columns` are their names, for messages."""

    @property
    def number(self) -> int: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def images(self) -> tuple[bytes, ...]: ...


RowT = TypeVar("RowT", bound=Row)
Row_co = TypeVar("Row_co", bound=Row, covariant=True)


class Annotated(Protocol[Row_co]):
    """A row without its images; `places` say where its source finds them: paths or columns."""

    @property
    def number(self) -> int: ...

    @property
    def prompt(self) -> str: ...

    @property
    def places(self) -> tuple[str, ...]: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    def at(self, places: Sequence[str]) -> Self:
        """The same row with its images elsewhere."""
        ...

    def with_images(self, images: Sequence[bytes]) -> Row_co: ...


@dataclass(frozen=True, slots=True)
class Annotation:
    """A row without its images. `chosen` and `rejected` say where its source finds them: a path or a column.

    `number` counts from 1 over all files of the dataset. `label` is in [0.5, 1]: the probability that `chosen` is really
    preferred; `swapped` tells that the file had the images the other way round, with a label below 0.5.
    """

    number: int
    prompt: str
    chosen: str
    rejected: str
    label: float
    score: float | None
    group_id: str
    swapped: bool = False

    @property
    def places(self) -> tuple[str, str]:
        return self.chosen, self.rejected

    @property
    def columns(self) -> tuple[str, str]:
        return "chosen", "rejected"

    def at(self, places: Sequence[str]) -> "Annotation":
        chosen, rejected = places
        return replace(self, chosen=chosen, rejected=rejected)

    def with_images(self, images: Sequence[bytes]) -> "PreferenceRow":
        chosen, rejected = images
        return PreferenceRow(
            self.number, self.prompt, chosen, rejected, self.label, self.score, self.group_id, self.swapped
        )


@dataclass(frozen=True, slots=True)
class PreferenceRow:
    """A row with the encoded bytes of its two images; fields as in `Annotation`."""

    number: int
    prompt: str
    chosen: bytes
    rejected: bytes
    label: float
    score: float | None
    group_id: str
    swapped: bool = False

    @property
    def columns(self) -> tuple[str, str]:
        return "chosen", "rejected"

    @property
    def images(self) -> tuple[bytes, bytes]:
        return self.chosen, self.rejected


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is not trained on: an error stops a run, a warning is counted and left out."""

    number: int
    code: str
    severity: Severity
    message: str


class ImageReader(Protocol):
    """Adds the images to annotated rows. Streams: no more than a few rows are in memory at a time."""

    @property
    def path(self) -> Path: ...

    def read(self, rows: Iterable[Annotated[RowT] | BadRow]) -> Iterator[RowT | BadRow]:
        """The same rows with their images; any selection of them, ascending unless seekable. Bad rows pass through."""
        ...


AnnotationT = TypeVar("AnnotationT", bound=Annotated[Row])
Annotation_co = TypeVar("Annotation_co", bound=Annotated[Row], covariant=True)


class Source(ImageReader, Protocol[Annotation_co]):
    """A dataset on disk."""

    @property
    def format(self) -> DatasetFormat: ...

    @property
    def is_seekable(self) -> bool:
        """Whether rows may be read in any order, each at about the cost of its own images."""
        ...

    @property
    def has_first_image(self) -> bool:
        """Whether rows show a first and a second image and say which one won; the other way is to name the winner."""
        ...

    @property
    def notes(self) -> list[str]:
        """What of the dataset is not read, in words, such as other splits."""
        ...

    def size_bytes(self) -> int:
        """Bytes on disk, images included."""
        ...

    def unread_columns(self) -> list[str]:
        """Columns that mean nothing to us: a misspelt `label` would otherwise go unnoticed. May look at some rows only."""
        ...

    def annotations(self) -> Iterator[Annotation_co | BadRow]:
        """Every row in order, without reading an image."""
        ...


PreferenceSource = Source[Annotation]


def annotate(
    number: int,
    *,
    prompt: object,
    first: str,
    second: str,
    label: object,
    score: object = None,
    group_id: object = None,
) -> Annotation:
    """Check the values of a row and turn it so that the preferred image is `chosen`.

    `label` is the probability that `first` is preferred, 1 when None. Below 0.5 the images are swapped. `group_id` is
    a hash of the prompt when None. Raises `DataError` naming the column and what was expected.
    """
    text = checked_prompt(prompt)
    preference = _label(label)
    swapped = preference < TIE
    return Annotation(
        number=number,
        prompt=text,
        chosen=second if swapped else first,
        rejected=first if swapped else second,
        label=1 - preference if swapped else preference,
        score=_score(score),
        group_id=checked_group_id(group_id, text),
        swapped=swapped,
    )


def on_every_side(sides: Sequence[str], values: Sequence[T], read: Callable[[T], U]) -> list[U]:
    """`read` of each value; raises one `DataError` that tells of every side that has one, with the first one's code."""
    found: list[U] = []
    errors: list[tuple[str, DataError]] = []
    for side, value in zip(sides, values, strict=True):
        try:
            found.append(read(value))
        except DataError as error:
            if error.code in OF_THE_FILE:
                raise
            errors.append((side, error))
    if errors:
        messages = (one.message if one.message.startswith(side) else f"{side}: {one.message}" for side, one in errors)
        raise DataError(errors[0][1].code, "; ".join(messages))
    return found


def bad_row(number: int, error: DataError) -> BadRow:
    """The row that `error` was raised for."""
    return BadRow(number, error.code, "error", error.message)


def row_error(source: ImageReader, row: BadRow) -> DataError:
    """What a run says that meets `row`."""
    return DataError(row.code, f"{source.path.name}, row {row.number}: {row.message}")


def read_annotations(source: PreferenceSource, *, ties: Ties, dropped: Collection[int] = ()) -> list[Annotation]:
    """The rows to train on, in order. Rows that preflight warns about are left out, the `dropped` numbers, and ties if asked.

    Raises `DataError` at the first row with an error, and `no_usable_rows` when nothing is left.
    """
    rows = []
    for row in source.annotations():
        if row.number in dropped:
            continue
        if isinstance(row, Annotation):
            if row.label > TIE or _keeps(ties):
                rows.append(row)
        elif row.severity == "error":
            raise row_error(source, row)
    if not rows:
        kind = "usable row" if _keeps(ties) else "row with a preference"
        raise DataError("no_usable_rows", f"{source.path.name}: no {kind}; expected at least one")
    return rows


def drops(on_bad_row: OnBadRow) -> bool:
    """Whether a row with an error is left out, where it would else be the end."""
    match on_bad_row:
        case "drop":
            return True
        case "fail":
            return False
        case _:
            assert_never(on_bad_row)


def _keeps(ties: Ties) -> bool:
    match ties:
        case "keep":
            return True
        case "drop":
            return False
        case _:
            assert_never(ties)


def default_group_id(prompt: str) -> str:
    """Rows with the same prompt belong together."""
    return "prompt:" + hashlib.sha256(prompt.encode()).hexdigest()[:32]


def checked_prompt(value: object) -> str:
    """A prompt as it came, or `DataError`."""
    if not isinstance(value, str):
        raise DataError("invalid_prompt", f"prompt is {shown(value)}; expected a string, '' for none")
    if len(value) > MAX_PROMPT_CHARACTERS:
        raise DataError(
            "invalid_prompt", f"prompt has {len(value)} characters; expected at most {MAX_PROMPT_CHARACTERS}"
        )
    return _unicode(value, "prompt")


def _label(value: object) -> float:
    if value is None:
        return 1.0
    number = _number(value)
    if number is None or not 0 <= number <= 1:
        raise DataError(
            "invalid_label",
            f"label is {shown(value)}; expected a number in [0, 1], the probability that `chosen` is preferred",
        )
    return number


def _score(value: object) -> float | None:
    if value is None:
        return None
    number = _number(value)
    if number is None or not 0 <= number < math.inf:
        raise DataError("invalid_score", f"score is {shown(value)}; expected a finite number of at least 0, or none")
    return number


def checked_group_id(value: object, prompt: str) -> str:
    """A group's name as text, that of the prompt when there is none; or `DataError`."""
    if value is None:
        return default_group_id(prompt)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError("invalid_group_id", f"group_id is {shown(value)}; expected a string or an integer")
    text = str(value)
    if not 1 <= len(text) <= MAX_GROUP_ID_CHARACTERS:
        raise DataError(
            "invalid_group_id", f"group_id has {len(text)} characters; expected 1 to {MAX_GROUP_ID_CHARACTERS}"
        )
    return _unicode(text, "group_id")


def _unicode(text: str, column: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair
        raise DataError(f"invalid_{column}", f"{column} is no Unicode text: {error}") from error
    return text


def _number(value: object) -> float | None:
    """Booleans are no numbers here: `true` as a label is a mistake about what a label is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 else math.inf


def shown(value: object) -> str:
    """A value and its type, short enough for a message."""
    text = repr(value[:40] if isinstance(value, str | bytes) else value)
    return f"{text[:60]} ({type(value).__name__})"
