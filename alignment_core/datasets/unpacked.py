"""Images of a dataset as files of their own, for random visits to a format that reads forwards.

A row in the middle of a parquet row group costs reading the group up to it, which random transforms would pay at every
visit. So the images are copied once, to files named by the SHA-256 of their content; the name also tells a damaged file.
"""

import hashlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path

from alignment_core.datasets.cache import cache_lost
from alignment_core.datasets.durable_files import write_durably
from alignment_core.datasets.encoding import EncodingProgress, read_images
from alignment_core.datasets.rows import Annotated, AnnotationT, BadRow, ImageReader, RowT
from alignment_core.events import PhaseProgressed


class UnpackedImages:
    """`rows.ImageReader` over files by content; the places of its rows are names of such files."""

    def __init__(self, dataset: Path, folder: Path) -> None:
        self._dataset = dataset
        self._folder = folder

    @property
    def path(self) -> Path:
        """The dataset the images are of: what messages name."""
        return self._dataset

    def read(self, rows: Iterable[Annotated[RowT] | BadRow]) -> Iterator[RowT | BadRow]:
        """See `ImageReader`. Raises `AlignmentError("cache_lost")` for a file that is gone or damaged."""
        for row in rows:
            yield row if isinstance(row, BadRow) else row.with_images([self._read(place) for place in row.places])

    def add(self, data: bytes) -> tuple[str, bool]:
        """Keep an image; its name, and whether it was there already."""
        name = hashlib.sha256(data).hexdigest()
        path = self._file(name)
        if path.exists() and path.stat().st_size == len(data):
            return name, True
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, data)
        return name, False

    def _read(self, name: str) -> bytes:
        path = self._file(name)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise cache_lost(path.name, str(error)) from error
        if hashlib.sha256(data).hexdigest() != name:
            path.unlink(missing_ok=True)
            raise cache_lost(path.name, "its content is not what its name says")
        return data

    def _file(self, name: str) -> Path:
        return self._folder / name[:2] / name


def unpack_images(
    source: ImageReader, rows: Sequence[AnnotationT], folder: Path, progress: EncodingProgress
) -> Generator[PhaseProgressed, None, tuple[UnpackedImages, list[AnnotationT]]]:
    """Copy the images of `rows` that are not in `folder` yet; the rows that come back name the copies."""
    images = UnpackedImages(source.path, folder)
    named = []
    for annotation, row in zip(rows, read_images(source, rows), strict=True):
        added = [images.add(data) for data in row.images]
        named.append(annotation.at([name for name, _ in added]))
        yield from progress.advance(len(added), sum(cached for _, cached in added))
    return images, named
