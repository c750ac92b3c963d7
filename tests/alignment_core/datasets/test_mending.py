"""A shard that goes away in the middle of a run is encoded again where it is missed, with the bits that it had."""

from pathlib import Path

import pytest
import torch

from alignment_core.datasets.bad_rows import read_annotations
from alignment_core.datasets.detect import open_preferences
from alignment_core.datasets.mending import batches_of, first_at_each_place
from alignment_core.datasets.pairs import PairTensors
from alignment_core.errors import AlignmentError
from tests.alignment_core.datasets.builders import Encoders, rows, write_parquet
from tests.alignment_core.datasets.test_pairs import prepare

NUM = 11
FIELDS = ("chosen_mean", "chosen_std", "rejected_mean", "rejected_std")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Pairs of which two have an image in common."""
    values = rows(NUM, num_prompts=4)
    values[7]["rejected"] = values[2]["chosen"]
    return write_parquet(tmp_path / "pairs.parquet", values, row_group_size=4)


def shards(cache: Path) -> list[Path]:
    return sorted(cache.glob("*/*.safetensors"))


def damage(path: Path, *, is_gone: bool) -> None:
    path.unlink() if is_gone else path.write_bytes(path.read_bytes()[:-1] + b"x")


def assert_equal(one: PairTensors, other: PairTensors) -> None:
    assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in FIELDS)
    assert one.conditioning.keys() == other.conditioning.keys()
    assert all(torch.equal(value, other.conditioning[name]) for name, value in one.conditioning.items())


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_run_goes_on_with_the_bits_it_would_have_had(tmp_path: Path, file: Path, is_gone: bool) -> None:
    _, untouched = prepare(file, tmp_path / "whole", Encoders(), batch_size=6)
    encoders = Encoders()
    _, pairs = prepare(file, tmp_path / "cache", encoders, batch_size=6)
    encoders.images.clear()
    before = shards(tmp_path / "cache")
    _, again = prepare(file, tmp_path / "cache", encoders, batch_size=6)  # which has mapped nothing yet
    for path in before:
        damage(path, is_gone=is_gone)
        again._text._shelf._verified.clear()  # pyright: ignore[reportAttributeAccessIssue]
        again._posteriors.shards._shelf._verified.clear()  # pyright: ignore[reportAttributeAccessIssue]
        again._text._open.clear()
    assert_equal(again.batch(range(NUM)), untouched.batch(range(NUM)))
    assert encoders.num_images == 2 * NUM - 1
    assert shards(tmp_path / "cache") == before
    assert len(pairs) == NUM


def test_of_a_shard_that_holds_more_than_this_run_knows_the_rest_is_left_out(tmp_path: Path, file: Path) -> None:
    prepare(file, tmp_path / "cache", Encoders(), batch_size=6)
    some = read_annotations(open_preferences(file), ties="keep")[3:8]
    encoders = Encoders()
    _, pairs = prepare(file, tmp_path / "cache", encoders, selected=some, batch_size=6)
    assert encoders.num_images == 0
    for path in shards(tmp_path / "cache"):
        path.unlink()
    read = pairs.batch([4, 0, 2, 0])
    _, alone = prepare(file, tmp_path / "alone", Encoders(), selected=some, batch_size=6)
    assert_equal(read, alone.batch([4, 0, 2, 0]))
    assert encoders.num_images == 10
    _, rest = prepare(file, tmp_path / "cache", again := Encoders(), batch_size=6)
    assert again.num_images == 2 * NUM - 1 - 10
    assert len(rest) == NUM


def test_where_the_rows_are_gone_too_the_run_ends_and_may_be_run_again(tmp_path: Path, file: Path) -> None:
    _, pairs = prepare(file, tmp_path / "cache", Encoders(), batch_size=6)
    for path in (file, *shards(tmp_path / "cache")):
        path.unlink()
    with pytest.raises(AlignmentError, match="cannot be made") as caught:
        pairs.batch([0])
    assert (caught.value.code, caught.value.retryable) == ("cache_lost", True)


def test_entries_of_one_place_are_one_image() -> None:
    places = torch.tensor([[0, 0], [1, 0], [0, 1], [0, 0], [0, 2]])
    assert first_at_each_place(places, 0).tolist() == [True, False, True, False, True]


def test_batches_are_those_of_all_rows() -> None:
    assert batches_of([0, 1, 5, 6, 8], 3) == [[0, 1], [5], [6, 8]]
