"""Reading and decoding go on while the encoder is busy, within bounds, and nothing but the time depends on it."""

import threading
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from alignment_core.datasets.ahead import begun_ahead, read_ahead
from alignment_core.datasets.bad_rows import read_annotations
from alignment_core.datasets.cache import Places, TensorCache
from alignment_core.datasets.detect import open_preferences
from alignment_core.datasets.encoding import EncodeImages, EncodingProgress, cache_images
from alignment_core.datasets.rows import ImageReader
from alignment_core.errors import DataError
from alignment_core.events import PhaseProgressed
from tests.alignment_core.datasets.builders import Encoders, Row, drain, rows, write_parquet

PATIENCE_SECONDS = 60.0
RESOLUTION, PAIRS_PER_BATCH = 16, 2
BYTES_OF_A_BATCH = 2 * PAIRS_PER_BATCH * 3 * RESOLUTION**2 * 4


class Counting:
    """A reader that says how many rows have been read."""

    def __init__(self, reader: ImageReader) -> None:
        self._reader = reader
        self.num_read = 0
        self.changed = threading.Condition()

    @property
    def path(self) -> Path:
        return self._reader.path

    def read(self, rows: Iterable[Any]) -> Iterator[Any]:
        for row in self._reader.read(rows):
            with self.changed:
                self.num_read += 1
                self.changed.notify_all()
            yield row

    def has_read(self, num: int) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.num_read >= num, PATIENCE_SECONDS)


def caching(
    values: list[Row], folder: Path, *, bytes_ahead: int, encode: EncodeImages | None = None
) -> tuple[Counting, TensorCache, Generator[PhaseProgressed, None, tuple[Places, ...]]]:
    """Encoding all images with so much decoded ahead, not begun; what reads them, and where they are kept."""
    source = open_preferences(write_parquet(folder / "pairs.parquet", values))
    reader, cache = Counting(source), TensorCache(folder / "cache", {"kind": "posterior"})
    run = cache_images(
        reader,
        read_annotations(source, ties="keep"),
        encode or Encoders().encode_images,
        cache,
        num_images=2,
        resolution=RESOLUTION,
        batch_size=2 * PAIRS_PER_BATCH,
        progress=EncodingProgress(total=2 * len(values)),
        bytes_ahead=bytes_ahead,
    )
    return reader, cache, run


def test_the_next_batches_are_read_while_the_encoder_is_busy(tmp_path: Path) -> None:
    waited: list[bool] = []

    def encode(images: Tensor) -> tuple[Tensor, Tensor]:
        waited.append(reader.has_read(4 * PAIRS_PER_BATCH))  # in turns it would wait for ever
        return Encoders().encode_images(images)

    reader, _, run = caching(rows(10), tmp_path, bytes_ahead=2 * BYTES_OF_A_BATCH, encode=encode)
    drain(run)
    assert len(waited) == 5
    assert all(waited)


def test_no_more_is_read_ahead_than_was_allowed(tmp_path: Path) -> None:
    reader, _, run = caching(rows(24), tmp_path, bytes_ahead=1)  # less than a batch, which is the least
    next(run)
    run.close()  # waits for what is being read
    assert 2 * PAIRS_PER_BATCH <= reader.num_read <= 4 * PAIRS_PER_BATCH


def test_the_bits_and_batches_do_not_depend_on_how_far_decoding_is_ahead(tmp_path: Path) -> None:
    values = rows(9)
    values[5] = {**values[5], "chosen": values[2]["chosen"]}  # comes again while the first is still to be encoded
    found: list[tuple[list[int], dict[str, Tensor]]] = []
    for name, bytes_ahead in (("turns", 0), ("ahead", 8 * BYTES_OF_A_BATCH)):
        encoders, folder = Encoders(), tmp_path / name
        folder.mkdir()
        _, cache, run = caching(values, folder, bytes_ahead=bytes_ahead, encode=encoders.encode_images)
        _, places = drain(run)
        found.append((encoders.images, cache.reader().read(torch.cat(places))))
    (batches, turns), (batches_ahead, ahead) = found
    assert batches == batches_ahead
    assert all(torch.equal(turns[name], ahead[name]) for name in ("mean", "std", "frame"))


def test_what_stands_before_a_broken_image_is_encoded_before_it_is_named(tmp_path: Path) -> None:
    values = rows(8)
    values[6] = {**values[6], "rejected": b"no image"}
    encoders = Encoders()
    _, _, run = caching(values, tmp_path, bytes_ahead=8 * BYTES_OF_A_BATCH, encode=encoders.encode_images)
    with pytest.raises(DataError, match="row 7, rejected"):
        drain(run)
    assert encoders.num_images == 2 * 6


def test_what_was_begun_before_an_error_comes_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise ValueError("the fourth")

    found = begun_ahead(read_ahead(items()), 5)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the fourth"):
        next(found)
