"""What becomes of rows that cannot be used: an error that names them, or a row left out and counted."""

from collections.abc import Callable, Collection, Sequence
from typing import TypeVar, assert_never

from alignment_core.datasets.rows import TIE, Annotation, BadRow, ImageReader, PreferenceSource, Ties
from alignment_core.errors import DataError
from alignment_core.spec.sources import OnBadRow

OF_THE_FILE = ("unreadable_file", "unsafe_archive", "dataset_too_large")  # errors that no row can be blamed for
T = TypeVar("T")
U = TypeVar("U")


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
