"""Images that are copied out of a file for random visits: bounded on the disk, and the numbers do not tell."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from alignment_core.datasets.bad_rows import read_annotations
from alignment_core.datasets.detect import open_preferences
from alignment_core.datasets.encoding import EncodingProgress
from alignment_core.datasets.judged_images import JudgedImages
from alignment_core.datasets.pairs import PairTensors, PreferencePairs
from alignment_core.datasets.preparation import Preparation
from alignment_core.datasets.rows import Annotation
from alignment_core.datasets.shelf import Disk
from alignment_core.datasets.unpacked import ImageFolder, UnpackedImages, unpack_images
from alignment_core.datasets.unpaired import images_of_pairs
from alignment_core.errors import AlignmentError
from alignment_core.load.shelves import images_disk_of
from alignment_core.ranks import ALONE
from alignment_core.spec.places import Sources
from tests.alignment_core.datasets.builders import Encoders, Row, drain, image_bytes, write_parquet

NUM = 9


def rows() -> list[Row]:
    return [
        {"prompt": f"{i}", "chosen": image_bytes(2 * i, 40, 24), "rejected": image_bytes(2 * i + 1, 24, 40)}
        for i in range(NUM)
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_parquet(tmp_path / "pairs.parquet", rows(), row_group_size=4)


def _exact(images: Tensor) -> tuple[Tensor, Tensor]:
    """An encoder whose bits do not depend on the batch."""
    return images[:, :, :4, :4], images[:, :, :4, :4].abs()


def pairs_of(path: Path, cache: Path, disk: Disk | None) -> PreferencePairs:
    source = open_preferences(path)
    _, pairs = drain(
        PreferencePairs.prepare(
            source,
            read_annotations(source, ties="drop"),
            Preparation(
                encode_images=_exact,
                encode_prompts=Encoders().encode_prompts,
                image_fingerprint="f",
                prompt_fingerprint="f",
                resolution=16,
                crop="random",
                horizontal_flip=True,
                cache_dir=cache,
                batch_size=4,
                images_disk=disk,
            ),
            joint=False,
        )
    )
    return pairs


def likes_of(path: Path, cache: Path, disk: Disk | None) -> JudgedImages:
    source = open_preferences(path)
    _, images = drain(
        JudgedImages.prepare(
            source,
            images_of_pairs(read_annotations(source, ties="drop")),
            Preparation(
                encode_images=_exact,
                encode_prompts=Encoders().encode_prompts,
                image_fingerprint="f",
                prompt_fingerprint="f",
                resolution=16,
                crop="random",
                horizontal_flip=True,
                cache_dir=cache,
                batch_size=4,
                images_disk=disk,
            ),
            is_seekable=source.is_seekable,
        )
    )
    return images


def left_by_others(folder: Path, num: int, size: int = 100) -> list[str]:
    """Images of another data set, the newest first."""
    others = ImageFolder(folder, Disk())
    names = [others.add(bytes([number + 100]) * size) for number in range(num)]
    for number, name in enumerate(names):
        os.utime(folder / name[:2] / name, (2000 - number, 2000 - number))
    return names


def draws(num: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(num)]


def copies(cache: Path) -> dict[str, int]:
    return {one.name: one.stat().st_size for one in (cache / "images").rglob("*") if one.is_file()}


def tensors(batch: PairTensors) -> list[Tensor]:
    return [batch.chosen_mean, batch.chosen_std, batch.rejected_mean, batch.rejected_std]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_with_a_bound_the_numbers_are_those_without_and_no_more_lies_on_the_disk(
    share: float, path: Path, tmp_path: Path
) -> None:
    free = pairs_of(path, tmp_path / "free", None)
    everything = copies(tmp_path / "free")
    assert len(everything) == 2 * NUM
    limit = max(1, round(share * sum(everything.values())))
    bounded, bound = pairs_of(path, tmp_path / "cache", Disk(limit)), max(limit, *everything.values())
    left = set()
    for seed in range(12):
        order = np.random.default_rng(seed).permutation(NUM).tolist()[:4]
        found, expected = (tensors(one.batch([*order, order[0]], draws(5))) for one in (bounded, free))
        assert all(map(torch.equal, found, expected))
        here = copies(tmp_path / "cache")
        assert sum(here.values()) <= bound  # one image is there, however small the bound
        left |= everything.keys() - here.keys()
    assert left == everything.keys()  # every image had to go once


def test_judged_images_of_pairs_are_found_again_too(path: Path, tmp_path: Path) -> None:
    free, bounded = likes_of(path, tmp_path / "free", None), likes_of(path, tmp_path / "cache", Disk(20_000))
    assert len(free) == len(bounded) == 2 * NUM
    for indices in ([17, 0, 1, 0], [5, 4, 16, 9], [1, 2, 3]):
        found, expected = (one.batch(indices, draws(len(indices))) for one in (bounded, free))
        assert torch.equal(found.mean, expected.mean)
        assert torch.equal(found.std, expected.std)
    assert sum(copies(tmp_path / "cache").values()) <= 20_000 < sum(copies(tmp_path / "free").values())


def test_a_copy_that_is_damaged_or_gone_is_made_again(path: Path, tmp_path: Path) -> None:
    pairs = pairs_of(path, tmp_path / "cache", None)
    expected, before = tensors(pairs.batch([2, 5], draws(2))), copies(tmp_path / "cache")
    for number, file in enumerate(sorted((tmp_path / "cache" / "images").glob("*/*"))):
        file.unlink() if number % 2 else file.write_bytes(bytes(file.stat().st_size))
    assert all(map(torch.equal, tensors(pairs.batch([2, 5], draws(2))), expected))
    again = {hashlib.sha256(one.read_bytes()).hexdigest() for one in (tmp_path / "cache" / "images").glob("*/*")}
    assert len(again & before.keys()) == 4  # of both pairs


def test_what_neither_the_disk_nor_the_dataset_has_ends_the_run_to_be_run_again(path: Path, tmp_path: Path) -> None:
    pairs = pairs_of(path, tmp_path / "cache", Disk(1))
    content, image = path.read_bytes(), image_bytes(4, 40, 24)
    assert image[100:200] in content
    path.write_bytes(content.replace(image[100:200], bytes(100)))
    with pytest.raises(AlignmentError, match=r"row 3 of the dataset has another image") as caught:
        pairs.batch([2], draws(1))
    assert (caught.value.code, caught.value.retryable) == ("cache_lost", True)


def test_what_earlier_runs_left_counts_and_goes_first(tmp_path: Path) -> None:
    old, older = left_by_others(tmp_path, 2)
    bounded = ImageFolder(tmp_path, Disk(250))
    bounded.count_what_is_here()
    new = [bounded.add_where_there_is_room(bytes([number]) * 100) for number in (10, 11)]
    assert [is_here for _, is_here in new] == [False, False]
    assert [bounded.get(name) is not None for name in (*(name for name, _ in new), old, older)] == [
        True,
        True,
        False,
        False,
    ]
    third, is_here = bounded.add_where_there_is_room(bytes([12]) * 100)
    assert (is_here, bounded.get(third)) == (False, None)  # beside those of this run there was no room
    assert bounded.add_where_there_is_room(bytes([10]) * 100) == (new[0][0], True)  # and counts once
    again = bounded.add(bytes([12]) * 100)  # what is missed later has it, for the one that was not read for longest
    assert [bounded.get(name) is not None for name in (again, new[0][0], new[1][0])] == [True, True, False]


def test_one_of_others_stays_where_there_is_room_and_the_oldest_goes_alone(tmp_path: Path) -> None:
    old, older = left_by_others(tmp_path, 2)
    bounded = ImageFolder(tmp_path, Disk(250))
    bounded.count_what_is_here()
    new, _ = bounded.add_where_there_is_room(bytes(100))
    assert [bounded.get(name) is not None for name in (new, old, older)] == [True, True, False]


def test_training_and_validation_share_the_room(path: Path, tmp_path: Path) -> None:
    source = open_preferences(path)
    train, validation = (annotations := read_annotations(source, ties="drop"))[:3], annotations[3:]

    def unpack(part: list[Annotation], disk: Disk) -> None:
        drain(unpack_images(source, part, tmp_path / "cache" / "images", EncodingProgress(total=2 * NUM), disk))

    unpack(train, Disk())  # by an earlier run, before others left theirs
    first = copies(tmp_path / "cache")
    for file in (tmp_path / "cache" / "images").glob("*/*"):
        os.utime(file, (1000, 1000))
    left_by_others(tmp_path / "cache" / "images", 10, size=1000)
    disk = Disk(limit := sum(first.values()) + 4000)
    unpack(train, disk)
    unpack(validation, disk)
    here = copies(tmp_path / "cache")
    assert first.keys() < here.keys()
    assert any(size != 1000 for size in (here[name] for name in here.keys() - first.keys())), "one more had room"
    assert sum(here.values()) <= limit


def test_a_copy_that_another_process_removes_meanwhile_is_not_counted(tmp_path: Path) -> None:
    (name,) = left_by_others(tmp_path, 1)
    (tmp_path / name[:2] / "gone").symlink_to(tmp_path / "nowhere")  # is listed, and is not there when it is asked
    (tmp_path / name[:2] / "half.tmp").write_bytes(bytes(1000))
    disk = Disk(250)
    ImageFolder(tmp_path, disk).count_what_is_here()
    assert disk.bytes_held == 100


def test_rows_that_do_not_ascend_are_refused(path: Path, tmp_path: Path) -> None:
    annotations = read_annotations(source := open_preferences(path), ties="drop")
    with pytest.raises(AssertionError, match="ascend"):
        UnpackedImages(source, ImageFolder(tmp_path, Disk()), annotations[::-1], [("a", "b")] * NUM)


def test_the_bound_has_a_default_and_is_shared_out_to_processes() -> None:
    assert images_disk_of(Sources(), ALONE).limit_bytes == 32 * 2**30
    assert images_disk_of(Sources(unpacked_disk_bytes=None), ALONE).limit_bytes is None
    assert images_disk_of(Sources.model_validate({"unpacked_disk_bytes": 1000}), ALONE).limit_bytes == 1000
