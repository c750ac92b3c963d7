"""Preference rows: what every reader turns its files into, and what a reader promises.

A row goes through two stages. An annotation is everything about a row but its images: cheap to read and checked, and a
pair is already the right way round. A row is the annotation with the bytes of its images. What cannot become one is a
`BadRow` that says why; nothing disappears silently. Pairs are here, single images with a like or a dislike in `unpaired`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, Self, TypeVar

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
        """Columns that mean nothing to us, not even where rows come from: a misspelt `label` would otherwise go unnoticed. May look at some rows only."""
        ...

    def annotations(self) -> Iterator[Annotation_co | BadRow]:
        """Every row in order, without reading an image."""
        ...


PreferenceSource = Source[Annotation]
