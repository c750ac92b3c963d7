"""Tables: rows of values as a file has them, whatever its format. What the columns mean is a layout's affair.

A `Table` streams rows and finds images; `TableSource` reads one through a layout and so is a `rows.Source`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Generic, Literal, Protocol

from alignment_core.datasets.bad_rows import bad_row
from alignment_core.datasets.limits import Growth, counted_images, counted_values
from alignment_core.datasets.rows import Annotated, AnnotationT, BadRow, DatasetFormat, RowT
from alignment_core.errors import DataError

PROVENANCE = frozenset({"num_votes", "chosen_model", "rejected_model", "chosen_seed", "rejected_seed"})
"""Columns by which a data set made of a labeling says where its rows come from (docs/data.md); nothing reads them, as is meant."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """The values of a row by column. `place` says where the image of a column is (or that of an item of a list), and
    `shared_place` says it so that it can be found from other rows too."""

    number: int
    values: Mapping[str, object]
    place: Callable[[str, int | None], str]
    shared_place: Callable[[str], str]


class Table(Protocol):
    """Rows of values and the images that they name."""

    @property
    def path(self) -> Path: ...

    @property
    def form(self) -> DatasetFormat: ...

    @property
    def is_seekable(self) -> bool: ...

    @property
    def is_typed(self) -> bool:
        """Whether a number is a number; in CSV everything is text."""
        ...

    @property
    def columns(self) -> list[str]:
        """Names of the columns; of rows that each have their own, those of the first thousand."""
        ...

    @property
    def has_one_schema(self) -> bool:
        """Whether every row has every column."""
        ...

    @property
    def metadata_file(self) -> bool:
        """Whether it is the `metadata.*` of a Hugging Face ImageFolder."""
        ...

    @property
    def notes(self) -> list[str]:
        """What of the dataset is not read, in words."""
        ...

    def require(self, columns: Sequence[str]) -> None:
        """Raise `DataError("missing_column")` that names the file without one of them."""
        ...

    def size_bytes(self) -> int: ...

    def rows(self, columns: Sequence[str]) -> Iterator[TableRow | BadRow]:
        """Every row in order, with at least those of `columns` that hold no images."""
        ...

    def read(self, rows: Iterable[Annotated[RowT] | BadRow], columns: Sequence[str]) -> Iterator[RowT | BadRow]:
        """See `rows.ImageReader`; the images are those of `columns`."""
        ...


@dataclass(frozen=True)
class Layout(Generic[AnnotationT]):
    """What a kind of rows consists of, by role, and how annotations are made of rows whose values are named by role.

    A layout fits when it finds its images, what it requires, and one of its `preferences` (each a set of roles) if it has any.
    """

    kind: Literal["pairs", "unpaired"]
    images: tuple[str, ...]
    required: tuple[str, ...]
    optional: tuple[str, ...]
    annotations: Callable[[Iterable[TableRow | BadRow], Mapping[str, str]], Iterator[AnnotationT | BadRow]]
    preferences: tuple[tuple[str, ...], ...] = ()
    has_first_image: bool = False

    @property
    def roles(self) -> tuple[str, ...]:
        of_preferences = (role for one in self.preferences for role in one)
        return tuple(dict.fromkeys((*self.images, *self.required, *self.optional, *of_preferences)))

    def missing(self, roles: set[str]) -> list[str]:
        """What it lacks of `roles`, in words."""
        missing = [role for role in (*self.images, *self.required) if role not in roles]
        if self.preferences and not any(roles >= set(one) for one in self.preferences):
            missing.append(" or ".join("+".join(one) for one in self.preferences))
        return missing


def row_by_row(
    annotate: Callable[[TableRow, Mapping[str, str]], AnnotationT | BadRow],
) -> Callable[[Iterable[TableRow | BadRow], Mapping[str, str]], Iterator[AnnotationT | BadRow]]:
    """The `annotations` of a layout each of whose rows stands for itself."""

    def annotations(rows: Iterable[TableRow | BadRow], names: Mapping[str, str]) -> Iterator[AnnotationT | BadRow]:
        for row in rows:
            if isinstance(row, BadRow):
                yield row
                continue
            try:
                yield annotate(row, names)
            except DataError as error:
                yield bad_row(row.number, error)

    return annotations


class TableSource(Generic[AnnotationT]):
    """`rows.Source` over a table whose columns are `names` by role."""

    def __init__(
        self,
        table: Table,
        layout: Layout[AnnotationT],
        names: Mapping[str, str],
        *,
        format: DatasetFormat,
        are_others_known: bool,
    ) -> None:
        self._table = table
        self._layout = layout
        self._names = {role: names[role] for role in layout.roles if role in names}
        self._format: DatasetFormat = format
        self._are_others_known = are_others_known
        self._needed = [self._names[role] for role in (*layout.images, *layout.required)]
        table.require(self._needed)

    @property
    def path(self) -> Path:
        return self._table.path

    @property
    def format(self) -> DatasetFormat:
        return self._format

    @property
    def kind(self) -> Literal["pairs", "unpaired"]:
        return self._layout.kind

    @property
    def is_seekable(self) -> bool:
        return self._table.is_seekable

    @property
    def has_first_image(self) -> bool:
        return self._layout.has_first_image

    @property
    def notes(self) -> list[str]:
        return self._table.notes

    def size_bytes(self) -> int:
        return self._table.size_bytes()

    def unread_columns(self) -> list[str]:
        """See `Source`."""
        known = {*self._names.values(), *PROVENANCE}
        return [] if self._are_others_known else sorted(set(self._table.columns) - known)

    def annotations(self) -> Iterator[AnnotationT | BadRow]:
        """See `Source`."""
        growth = Growth(self.path.name, "values", self.size_bytes())
        rows = counted_values(self._table.rows(list(self._names.values())), self.path.name, growth)
        return self._layout.annotations(map(self._by_role, rows), self._names)

    def read(self, rows: Iterable[Annotated[RowT] | BadRow]) -> Iterator[RowT | BadRow]:
        """See `Source`."""
        images = self._table.read(rows, [self._names[role] for role in self._layout.images])
        return counted_images(images, Growth(self.path.name, "images", self.size_bytes()))

    def _by_role(self, row: TableRow | BadRow) -> TableRow | BadRow:
        if isinstance(row, BadRow):
            return row
        if not self._table.has_one_schema and (missing := [one for one in self._needed if one not in row.values]):
            expected = ", ".join(dict.fromkeys(self._needed))
            return BadRow(row.number, "missing_column", "error", f"no {', '.join(missing)}; expected {expected}")
        read = of_typed if self._table.is_typed else of_text
        values = {role: read(role, row.values.get(name)) for role, name in self._names.items()}
        return TableRow(
            row.number,
            values,
            place=lambda role, index: row.place(self._names[role], index),
            shared_place=lambda role: row.shared_place(self._names[role]),
        )


TEXT_ROLES = frozenset({"prompt", "winner", "group_id", "image", "image_0", "image_1", "chosen", "rejected", "images"})
_WORDS = {"true": True, "false": False}


def of_typed(role: str, value: object) -> object:
    """Databases export labels as decimals: a whole one is an integer, any other a float."""
    if isinstance(value, Decimal) and value.is_finite():
        return int(value) if value == value.to_integral_value() else float(value)
    return value


def of_text(role: str, value: object) -> object:
    """What a cell of text stands for in the column of a number; text that is none is left, for the row's message."""
    if role in TEXT_ROLES and role != "group_id":
        return value
    if not isinstance(value, str) or role == "group_id":
        return value or None
    text = value.strip()
    if not text or text.lower() in _WORDS:
        return _WORDS.get(text.lower())
    try:
        # spreadsheets of half the world write 0,5
        return float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except ValueError:
        return value
