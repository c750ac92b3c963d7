"""Images of a dataset as files of their own, for random visits to a format that reads forwards.

A row in the middle of a parquet row group costs reading the group up to it, which random transforms would pay at every
visit. So the images are copied once, to files named by the SHA-256 of their content; the name also tells a damaged file.
"""

import hashlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from alignment_core.datasets.cache import cache_lost, write_durably
from alignment_core.datasets.encoding import Progress, read_images
from alignment_core.datasets.rows import Annotation, BadRow, ImageReader, PreferenceRow, with_images
from alignment_core.events import PhaseProgressed


class UnpackedImages:
    """`rows.ImageReader` over files by content; `chosen` and `rejected` of its rows are names of such files."""

    def __init__(self, dataset: Path, folder: Path) -> None:
        self._dataset = dataset
        self._folder = folder

    @property
    def path(self) -> Path:
        """The dataset the images are of: what messages name."""
        return self._dataset

    def read(self, rows: Iterable[Annotation | BadRow]) -> Iterator[PreferenceRow | BadRow]:
        """See `ImageReader`. Raises `AlignmentError("cache_lost")` for a file that is gone or damaged."""
        for row in rows:
            yield row if isinstance(row, BadRow) else with_images(row, self._read(row.chosen), self._read(row.rejected))

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
            raise cache_lost(path, str(error)) from error
        if hashlib.sha256(data).hexdigest() != name:
            path.unlink(missing_ok=True)
            raise cache_lost(path, "its content is not what its name says")
        return data

    def _file(self, name: str) -> Path:
        return self._folder / name[:2] / name


def unpack_images(
    source: ImageReader, rows: Sequence[Annotation], folder: Path, progress: Progress
) -> Generator[PhaseProgressed, None, tuple[UnpackedImages, list[Annotation]]]:
    """Copy the images of `rows` that are not in `folder` yet; the rows that come back name the copies."""
    images = UnpackedImages(source.path, folder)
    named = []
    for annotation, row in zip(rows, read_images(source, rows), strict=True):
        chosen, chosen_cached = images.add(row.chosen)
        rejected, rejected_cached = images.add(row.rejected)
        named.append(replace(annotation, chosen=chosen, rejected=rejected))
        yield from progress.advance(2, chosen_cached + rejected_cached)
    return images, named
