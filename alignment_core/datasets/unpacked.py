"""Images of a dataset as files of their own, for random visits to a format that reads forwards.

A row in the middle of a parquet row group costs reading the group up to it, which random transforms would pay at every
visit. So the images are copied once, to files named by the SHA-256 of their content; the name also tells a damaged file.

The copies may take only so much of the disk (`shelf.Disk`): those that were not read for longest go, and whose copy is gone or damaged
is read from the dataset again, as its name says it was.
"""

import hashlib
import logging
from bisect import bisect_left
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Generic

from alignment_core.datasets.cache import cache_lost
from alignment_core.datasets.durable_files import write_durably
from alignment_core.datasets.encoding import EncodingProgress, read_images
from alignment_core.datasets.rows import Annotated, AnnotationT, BadRow, ImageReader, Row, RowT
from alignment_core.datasets.shelf import Disk
from alignment_core.events import PhaseProgressed

log = logging.getLogger(__name__)


class UnpackedImages(Generic[AnnotationT]):
    """`rows.ImageReader` over files by content; the places of its rows are names of such files. `rows` are those of `source`, ascending,
    and `names` what their images are called here."""

    def __init__(
        self,
        source: ImageReader,
        folder: "ImageFolder",
        rows: Sequence[AnnotationT],
        names: Sequence[tuple[str, ...]],
    ) -> None:
        assert all(one.number <= other.number for one, other in pairwise(rows)), "the rows ascend"
        self._source, self._folder = source, folder
        self._rows, self._names = rows, names

    @property
    def path(self) -> Path:
        """The dataset the images are of: what messages name."""
        return self._source.path

    def read(self, rows: Iterable[Annotated[RowT] | BadRow]) -> Iterator[RowT | BadRow]:
        """See `ImageReader`; the images of all `rows`, which are a batch's, are in memory together.

        Raises `AlignmentError("cache_lost")` for an image whose copy is gone, and which the dataset has no more.
        """
        asked = list(rows)
        found = [None if isinstance(row, BadRow) else self._copies(row.places) for row in asked]
        gone = [(place, row) for place, row in enumerate(asked) if found[place] is None and not isinstance(row, BadRow)]
        gone.sort(key=lambda one: one[1].number)  # forwards
        for (place, _), images in zip(gone, self._once_more([row for _, row in gone]), strict=True):
            found[place] = images
        for row, images in zip(asked, found, strict=True):
            if isinstance(row, BadRow):
                yield row
            else:
                assert images is not None, "what was gone was read once more"
                yield row.with_images(images)

    def _copies(self, names: Sequence[str]) -> list[bytes] | None:
        images = [image for image in map(self._folder.get, names) if image is not None]
        return images if len(images) == len(names) else None

    def _once_more(self, rows: Sequence[Annotated[Row]]) -> Iterator[list[bytes]]:
        for row, again in zip(rows, read_images(self._source, [self._of_source(row) for row in rows]), strict=True):
            images = list(again.images)
            for name, image in zip(row.places, images, strict=True):
                if self._folder.add(image) != name:
                    raise cache_lost(
                        name, f"its copy left the disk, and row {row.number} of the dataset has another image"
                    )
            yield images

    def _of_source(self, row: Annotated[Row]) -> AnnotationT:
        """A pair that is read as two judged images is two rows of one number."""
        first = bisect_left(self._rows, row.number, key=attrgetter("number"))
        return self._rows[self._names.index(tuple(row.places), first)]


class ImageFolder:
    """Images by the SHA-256 of their content, as many of them as `disk` allows."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder, self._disk = folder, disk

    def count_what_is_here(self) -> None:
        """Of earlier runs too, and of other datasets: the first that go are those that were put here first."""
        if self._disk.limit_bytes is None:
            return
        here: list[tuple[int, Path]] = []  # not what others are writing, or has its turn already
        for path in self._folder.glob("*/*"):
            if path.suffix != ".tmp" and not self._disk.holds(path):
                with suppress(FileNotFoundError):  # others needed its place meanwhile
                    here.append((path.stat().st_mtime_ns, path))
        for _, path in sorted(here):
            self._disk.hold(path)

    def add(self, image: bytes) -> str:
        """Keep an image, though others may have to go for it; its name."""
        name = hashlib.sha256(image).hexdigest()
        if not self._has(name, image):
            self._write(name, image)
        return name

    def add_where_there_is_room(self, image: bytes) -> tuple[str, bool]:
        """Keep an image, if none of this run has to go for it; its name, and whether it was there already."""
        name = hashlib.sha256(image).hexdigest()
        is_here = self._has(name, image)
        if self._disk.has_room_among_own(self._file(name), len(image)) and not is_here:
            self._write(name, image)
        return name, is_here

    def get(self, name: str) -> bytes | None:
        """The image, or None where it is not here any more; a file with another content is removed."""
        path = self._file(name)
        try:
            image = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise cache_lost(path.name, str(error)) from error
        if hashlib.sha256(image).hexdigest() != name:
            log.warning("%s: its content is not what its name says; it is read from the dataset again", path)
            path.unlink(missing_ok=True)
            return None
        self._disk.hold(path)
        return image

    def _has(self, name: str, image: bytes) -> bool:
        path = self._file(name)
        try:
            is_here = path.stat().st_size == len(image)
        except FileNotFoundError:
            return False
        return is_here and self._disk.hold(path)

    def _write(self, name: str, image: bytes) -> None:
        path = self._file(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, image)
        self._disk.hold(path)

    def _file(self, name: str) -> Path:
        return self._folder / name[:2] / name


def unpack_images(
    source: ImageReader,
    rows: Sequence[AnnotationT],
    folder: Path,
    progress: EncodingProgress,
    disk: Disk | None = None,
) -> Generator[PhaseProgressed, None, tuple[UnpackedImages[AnnotationT], list[AnnotationT]]]:
    """Copy the images of `rows` that are not in `folder` yet, as many as `disk` has room for; the rows that come back name the copies.

    What others left in `folder` goes for them.
    """
    images = ImageFolder(folder, disk or Disk())
    images.count_what_is_here()
    named: list[AnnotationT] = []
    for annotation, row in zip(rows, read_images(source, rows), strict=True):
        added = [images.add_where_there_is_room(image) for image in row.images]
        named.append(annotation.at([name for name, _ in added]))
        yield from progress.advance(len(added), sum(was_here for _, was_here in added))
    names = [tuple(row.places) for row in named]
    return UnpackedImages(source, images, rows, names), named
