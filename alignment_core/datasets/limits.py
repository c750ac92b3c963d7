"""How much may come out of a dataset: files repeat a value for almost nothing, and whoever reads them pays in full.

79 kB of parquet hold three million rows of 20,000 characters. Images and prompts hardly compress, so what grows far beyond
its file is refused while it streams, and what announces too many rows before that.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

from alignment_core.datasets.rows import BadRow
from alignment_core.errors import DataError

MAX_ROWS = 5_000_000  # of which preflight remembers about 400 bytes each
MAX_RATIO = 100  # of the bytes of all values, or all images, to the bytes of the files
RATIO_FREE_BYTES = 2**30


class _WithImages(Protocol):
    @property
    def images(self) -> tuple[bytes, ...]: ...


class _WithValues(Protocol):
    @property
    def values(self) -> Mapping[str, object]: ...


ValuesT = TypeVar("ValuesT", bound=_WithValues)
ImagesT = TypeVar("ImagesT", bound=_WithImages)


def refuse_many(name: str, num_rows: int) -> None:
    """Raise `DataError("dataset_too_large")` for more than `MAX_ROWS`."""
    if num_rows > MAX_ROWS:
        message = f"{name}: {num_rows:,} rows or more; expected at most {MAX_ROWS:,} in one dataset"
        raise DataError("dataset_too_large", message, hint="Split it into several datasets.")


class Growth:
    """Counts the bytes of one kind that were read out of files of `size_bytes`."""

    def __init__(self, name: str, kind: str, size_bytes: int) -> None:
        self._name, self._kind = name, kind
        self._most = max(RATIO_FREE_BYTES, MAX_RATIO * size_bytes)
        self._size_bytes = size_bytes
        self._bytes = 0

    def add(self, num_bytes: int) -> None:
        """Raise `DataError("unsafe_archive")` when it becomes too much."""
        self._bytes += num_bytes
        if self._bytes > self._most:
            raise DataError(
                "unsafe_archive",
                f"{self._name}: its {self._size_bytes:,} bytes grow to more than {self._most:,} bytes of {self._kind}; "
                f"expected at most {MAX_RATIO} times its size: the same values are repeated over and over",
            )


def counted_values(rows: Iterable[ValuesT | BadRow], name: str, growth: Growth) -> Iterator[ValuesT | BadRow]:
    """The rows as they come, with their number and the bytes of their values under limits."""
    for number, row in enumerate(rows, 1):
        refuse_many(name, number)
        if not isinstance(row, BadRow):
            growth.add(num_bytes(row.values))
        yield row


def counted_images(rows: Iterable[ImagesT | BadRow], growth: Growth) -> Iterator[ImagesT | BadRow]:
    """The rows as they come, with the bytes of their images under a limit."""
    for row in rows:
        if not isinstance(row, BadRow):
            growth.add(sum(len(image) for image in row.images))
        yield row


def num_bytes(value: object) -> int:
    """About how much memory a value takes, such as a row's."""
    match value:
        case str() | bytes():
            return len(value)
        case Mapping():
            return sum(num_bytes(one) for one in value.values())
        case list():
            return 8 * len(value) + sum(num_bytes(one) for one in value)
        case _:
            return 8
