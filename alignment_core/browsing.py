"""The rows of a checked data set, to be looked at: one file with thumbnails and rows that is read by ranges, page by page.

After the mark come the thumbnails (JPEG), then pages of up to 32 rows (JSON lines, zlib), then for every list the places of its pages, then
a footer (JSON) and its length. There is a list of all rows, and one for each kind of problem, so that a page of any of them costs a footer, a
piece of an index and one or two pages, however many rows there are. Whoever reads needs to decode no image.
"""

import struct
import tempfile
import zlib
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self

from pydantic import Field, ValidationError

from alignment_core.reports import ReportBase

ImageSide = Literal["chosen", "rejected", "image"]
ReadRange = Callable[[int, int], bytes]
"""The bytes of the file from a place up to and without another."""

LARGEST_PAGE_BYTES = 64 * 2**20  # unpacked: 32 rows of prompts, at most
LARGEST_THUMBNAIL_BYTES = 2**20


class DamagedBrowsing(ValueError):  # noqa: N818 - a state of affairs, read as one
    """The file is not as it was written."""


MARK = b"ATTUNE\x00\x01"
ROWS_OF_PAGE = 32
PAGES_OF_STEP = 128  # how many pages lie between two rows that the footer itself names
ALL = ""  # the name of the list of all rows; the others have the code of their problem

_PLACE = struct.Struct("<QQI")  # of a page: its first row, where it begins, how long it is
_LENGTH = struct.Struct("<Q")
_READ_AT_END = 16 * 1024


class RowNote(ReportBase):
    """What the check says of one row."""

    code: str
    severity: Literal["error", "warning"]
    message: str


class RowImage(ReportBase):
    """An image of a row, in pixels; `thumbnail` is where its JPEG lies: its first byte and its length."""

    width: int
    height: int
    thumbnail: tuple[int, int] | None = None


class BrowsedRow(ReportBase):
    """A row as people are shown it. What could not be read of it is None, and an image that could not be decoded is not in `images`."""

    row: int
    is_usable: bool
    prompt: str | None = None
    label: float | None = None
    liked: bool | None = None
    score: float | None = None
    group_id: str | None = None
    swapped: bool = False
    images: dict[ImageSide, RowImage] = Field(default_factory=dict)
    problems: list[RowNote] = Field(default_factory=list)


class _List(ReportBase):
    """One list: where the places of its pages are, and the first row of every 128th page."""

    num_rows: int
    num_pages: int
    at: int
    first_rows: list[int]


class _Footer(ReportBase):
    num_shown: int
    lists: dict[str, _List]


# --- writing -------------------------------------------------------------------------------------------------------


@dataclass
class _Pages:
    """A list that is being written."""

    places: bytearray = field(default_factory=bytearray)
    first_rows: list[int] = field(default_factory=list)
    waiting: list[bytes] = field(default_factory=list)
    first_waiting: int = 0
    num_rows: int = 0

    @property
    def num_pages(self) -> int:
        return len(self.places) // _PLACE.size


class _RowsAside:
    """Lines that wait for the end of the check, packed like the pages that they become: the disk holds little more than the file will."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed with the writer
        self._waiting: list[bytes] = []

    def add(self, line: bytes) -> None:
        self._waiting.append(line)
        if len(self._waiting) == ROWS_OF_PAGE:
            self._flush()

    def lines(self) -> Iterator[bytes]:
        """All of them, in their order, once there are no more to come."""
        self._flush()
        self._file.seek(0)
        while header := self._file.read(_LENGTH.size):
            (length,) = _LENGTH.unpack(header)
            yield from zlib.decompress(self._file.read(length)).splitlines(keepends=True)

    def close(self) -> None:
        self._file.close()

    def _flush(self) -> None:
        page = zlib.compress(b"".join(self._waiting))
        self._file.write(_LENGTH.pack(len(page)) + page)
        self._waiting.clear()


class BrowsingWriter:
    """Writes the file at `path` while rows go by, in ascending order: `add` each, then `finish`. Thumbnails are never in memory together."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("xb")
        self._rows = _RowsAside(path.parent)
        self._file.write(MARK)
        self._num_shown = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.close()
        self._file.close()

    def add(self, row: BrowsedRow, thumbnails: Mapping[ImageSide, bytes]) -> None:
        """One row without its problems, and the JPEG of each image that is to be shown."""
        images = {
            side: image.model_copy(update={"thumbnail": self._put(thumbnails[side])}) if side in thumbnails else image
            for side, image in row.images.items()
        }
        self._num_shown += bool(thumbnails)
        self._rows.add(row.model_copy(update={"images": images}).model_dump_json().encode() + b"\n")

    def finish(self, notes_of: Callable[[int], Sequence[RowNote]]) -> None:
        """Write the rows with what the check says of each, which is known only now that it has seen all."""
        lists = {ALL: _Pages()}
        for line in self._rows.lines():
            row = BrowsedRow.model_validate_json(line)
            if notes := list(notes_of(row.row)):
                line = row.model_copy(update={"problems": notes}).model_dump_json().encode() + b"\n"
            for name in (ALL, *dict.fromkeys(note.code for note in notes)):
                self._append(lists.setdefault(name, _Pages()), row.row, line)
        told = {name: self._close(pages) for name, pages in lists.items()}
        footer = _Footer(num_shown=self._num_shown, lists=told).model_dump_json().encode()
        self._file.write(footer + _LENGTH.pack(len(footer)))
        self._file.flush()

    def _put(self, data: bytes | bytearray) -> tuple[int, int]:
        at = self._file.tell()
        self._file.write(data)
        return at, len(data)

    def _append(self, pages: _Pages, row: int, line: bytes) -> None:
        if not pages.waiting:
            pages.first_waiting = row
        pages.waiting.append(line)
        pages.num_rows += 1
        if len(pages.waiting) == ROWS_OF_PAGE:
            self._flush(pages)

    def _flush(self, pages: _Pages) -> None:
        if pages.num_pages % PAGES_OF_STEP == 0:
            pages.first_rows.append(pages.first_waiting)
        pages.places += _PLACE.pack(pages.first_waiting, *self._put(zlib.compress(b"".join(pages.waiting))))
        pages.waiting.clear()

    def _close(self, pages: _Pages) -> _List:
        if pages.waiting:
            self._flush(pages)
        at, _ = self._put(pages.places)
        return _List(num_rows=pages.num_rows, num_pages=pages.num_pages, at=at, first_rows=pages.first_rows)


# --- reading -------------------------------------------------------------------------------------------------------


class BrowsingReader:
    """Reads a file of `size_bytes` by `read`, no more of it than is asked for. Raises `DamagedBrowsing`."""

    def __init__(self, size_bytes: int, read: ReadRange) -> None:
        self._size_bytes = size_bytes
        self._source = read
        with _told():
            self._footer = self._read_footer()

    @property
    def num_rows(self) -> int:
        return self._footer.lists[ALL].num_rows

    @property
    def num_shown(self) -> int:
        """How many rows have a thumbnail."""
        return self._footer.num_shown

    def count(self, problem: str) -> int:
        """How many rows have this problem."""
        found = self._footer.lists.get(problem)
        return 0 if found is None else found.num_rows

    def rows(self, problem: str | None, after: int, limit: int) -> tuple[list[BrowsedRow], bool]:
        """Up to `limit` rows behind the row `after`, all of them or those with a problem, ascending; whether there are more."""
        with _told():
            rows = self._rows_from(self._footer.lists.get(problem or ALL), after + 1, limit)
            found = list(islice(rows, limit + 1))
        return found[:limit], len(found) > limit

    def row(self, number: int) -> BrowsedRow | None:
        found, _ = self.rows(None, number - 1, 1)
        return found[0] if found and found[0].row == number else None

    def thumbnail(self, image: RowImage) -> bytes | None:
        """Its JPEG; None where it has none."""
        if image.thumbnail is None:
            return None
        at, length = image.thumbnail
        if length > LARGEST_THUMBNAIL_BYTES:
            raise DamagedBrowsing("a thumbnail is larger than any is")
        return self._read(at, at + length)

    def _rows_from(self, one: _List | None, first: int, limit: int) -> Iterator[BrowsedRow]:
        for at, length in self._pages_from(one, first, limit // ROWS_OF_PAGE + 2) if one and one.num_pages else ():
            for line in _unpacked(self._read(at, at + length)).splitlines():
                row = BrowsedRow.model_validate_json(line)
                if row.row >= first:
                    yield row

    def _pages_from(self, one: _List, first: int, num: int) -> Iterable[tuple[int, int]]:
        """Where the page with the row `first` is, or would be, and those after it, `num` in all."""
        step = max(0, bisect_right(one.first_rows, first) - 1) * PAGES_OF_STEP
        end = min(one.num_pages, step + PAGES_OF_STEP + num)
        places = list(_PLACE.iter_unpack(self._read(one.at + step * _PLACE.size, one.at + end * _PLACE.size)))
        start = max(0, bisect_right(places, first, key=lambda place: place[0]) - 1)
        return ((at, length) for _, at, length in places[start : start + num])

    def _read_footer(self) -> _Footer:
        end = self._read(max(0, self._size_bytes - _READ_AT_END), self._size_bytes)
        (length,) = _LENGTH.unpack(end[-_LENGTH.size :])
        if length + _LENGTH.size > len(end):
            end = self._read(self._size_bytes - length - _LENGTH.size, self._size_bytes)
        return _Footer.model_validate_json(end[-length - _LENGTH.size : -_LENGTH.size])

    def _read(self, start: int, end: int) -> bytes:
        if not 0 <= start <= end <= self._size_bytes:
            raise DamagedBrowsing("it names a place outside of itself")
        found = self._source(start, end)
        if len(found) != end - start:
            raise DamagedBrowsing("it is shorter than it was")
        return found


def _unpacked(page: bytes) -> bytes:
    unpacking = zlib.decompressobj()
    found = unpacking.decompress(page, LARGEST_PAGE_BYTES)
    if not unpacking.eof:
        raise DamagedBrowsing("a page is cut, or larger than any is")
    return found


@contextmanager
def _told() -> Generator[None]:
    """What a file says that is not as it was written, as one kind of error."""
    try:
        yield
    except (struct.error, zlib.error, ValidationError, KeyError, IndexError) as error:
        raise DamagedBrowsing(f"it cannot be read: {type(error).__name__}") from error
