"""Shards that machines share: encoded once by any of them, believed by their hash alone, and on no disk more than may be."""

import shutil
import threading
from pathlib import Path

import pytest
import torch

from alignment_core.datasets.cache import Places, TensorCache
from alignment_core.datasets.shard_store import FolderStore
from alignment_core.datasets.shelf import UNSENT, Shelves
from alignment_core.errors import AlignmentError

SPACE: dict[str, str | int] = {"kind": "posterior", "resolution": 16}
NUM, A_SHARD = 24, 1200  # bytes of which a flush is due: two entries of 512 bytes and a third


class Away(FolderStore):
    """A store that cannot be written to."""

    def put(self, namespace: str, path: Path) -> None:
        raise AlignmentError("store_unavailable", "full", category="system")


def value(number: int) -> dict[str, torch.Tensor]:
    return {"mean": torch.full((8, 4, 4), float(number))}


def key_of(cache: TensorCache, number: int) -> bytes:
    return cache.key(f"image {number}".encode())


def encode_missing(shelves: Shelves, num: int = NUM) -> tuple[TensorCache, list[int]]:
    """The cache with all entries, and which of them had to be encoded."""
    cache = TensorCache(shelves, SPACE, shard_bytes=A_SHARD)
    missing = [number for number in range(num) if cache.find(key_of(cache, number)) is None]
    for number in missing:
        cache.add(key_of(cache, number), value(number))
        cache.flush_if_large()
    cache.flush()
    shelves.settle()
    return cache, missing


def places_of(cache: TensorCache, numbers: list[int]) -> Places:
    return torch.tensor([cache.find(key_of(cache, number)) for number in numbers])


def shards_in(folder: Path) -> list[Path]:
    """Without the files of keys, whose names have a dash."""
    return sorted(path for path in folder.rglob("*.safetensors") if "-" not in path.name)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def filled(tmp_path: Path, store: FolderStore) -> Path:
    """The store, after one machine has encoded all and sent it there."""
    _, missing = encode_missing(Shelves(tmp_path / "first", store))
    assert missing == list(range(NUM))
    return tmp_path / "store"


def test_a_second_machine_encodes_nothing_and_reads_the_same(tmp_path: Path, store: FolderStore, filled: Path) -> None:
    cache, missing = encode_missing(Shelves(tmp_path / "second", store))
    assert missing == []
    order = [5, 23, 0, 5]
    assert torch.equal(cache.reader().read(places_of(cache, order))["mean"][:, 0, 0, 0], torch.tensor(order).float())


def test_what_there_is_costs_the_keys_alone(tmp_path: Path, store: FolderStore, filled: Path) -> None:
    TensorCache(Shelves(tmp_path / "second", store), SPACE)
    assert shards_in(tmp_path / "second") == []


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_damaged_or_missing_shard_is_encoded_again(
    tmp_path: Path, store: FolderStore, filled: Path, is_gone: bool
) -> None:
    broken = shards_in(filled)[3]
    data = broken.read_bytes()
    broken.unlink() if is_gone else broken.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    cache, missing = encode_missing(Shelves(tmp_path / "second", store))
    assert len(missing) == 3
    assert cache.lost == [broken.stem]
    third, missing = encode_missing(Shelves(tmp_path / "third", store))
    assert (missing, third.lost) == ([], [])
    assert torch.equal(third.reader().read(places_of(third, list(range(NUM))))["mean"][:, 0, 0, 0], torch.arange(24.0))


def test_damaged_keys_cost_their_shard_and_never_another_image(
    tmp_path: Path, store: FolderStore, filled: Path
) -> None:
    mark = next(path for path in sorted(filled.rglob("*.safetensors")) if "-" in path.name)
    data = bytearray(mark.read_bytes())
    data[-1] ^= 1
    mark.write_bytes(bytes(data))
    cache, missing = encode_missing(Shelves(tmp_path / "second", store))
    assert len(missing) == 3
    assert torch.equal(
        cache.reader().read(places_of(cache, missing))["mean"], torch.stack([value(n)["mean"] for n in missing])
    )


def test_a_shard_that_this_disk_damaged_is_fetched_again(tmp_path: Path, store: FolderStore, filled: Path) -> None:
    for path in shards_in(tmp_path / "first"):
        path.write_bytes(b"")
    cache, missing = encode_missing(Shelves(tmp_path / "first", store))
    assert (missing, cache.lost) == ([], [])


def test_a_store_that_lost_all_gets_it_from_a_machine_that_has_it(
    tmp_path: Path, store: FolderStore, filled: Path
) -> None:
    shutil.rmtree(filled)
    _, missing = encode_missing(Shelves(tmp_path / "first", store))
    assert missing == []
    _, missing = encode_missing(Shelves(tmp_path / "second", store))
    assert missing == []


def test_what_a_store_did_not_take_is_used_here_and_sent_by_the_next_run(tmp_path: Path, store: FolderStore) -> None:
    cache, _ = encode_missing(Shelves(tmp_path / "first", Away(tmp_path / "store")))
    assert torch.equal(cache.reader().read(places_of(cache, [7]))["mean"][0], value(7)["mean"])
    assert len(shards_in(tmp_path / "first")) == len(list((tmp_path / "first").rglob(f"{UNSENT}/*"))) == 8
    _, missing = encode_missing(Shelves(tmp_path / "first", store))
    assert missing == []
    _, missing = encode_missing(Shelves(tmp_path / "second", store))
    assert missing == []


def test_a_disk_far_smaller_than_the_set_reads_the_same(tmp_path: Path, store: FolderStore, filled: Path) -> None:
    a_shard = max(path.stat().st_size for path in shards_in(filled))
    shelves = Shelves(tmp_path / "second", store, disk_bytes=2 * a_shard)
    cache, missing = encode_missing(shelves)
    assert missing == []
    order = torch.randperm(NUM, generator=torch.Generator().manual_seed(0)).tolist() * 2
    places, reader = places_of(cache, order), cache.reader()
    for start in range(0, len(order), 4):
        read = reader.read(places[start : start + 4])["mean"]
        assert read[:, 0, 0, 0].tolist() == order[start : start + 4]
        assert sum(path.stat().st_size for path in shards_in(tmp_path / "second")) <= 2 * a_shard
        assert _mapped_and_removed(tmp_path / "second") <= 2


def test_a_set_is_encoded_on_a_disk_that_cannot_hold_it(tmp_path: Path, store: FolderStore) -> None:
    shelves = Shelves(tmp_path / "first", store, disk_bytes=4000)
    cache, _ = encode_missing(shelves)
    assert sum(path.stat().st_size for path in shards_in(tmp_path / "first")) <= 4000
    read = cache.reader().read(places_of(cache, list(range(NUM))))["mean"]
    assert torch.equal(read[:, 0, 0, 0], torch.arange(24.0))


def test_two_machines_that_encode_at_once_leave_a_store_that_a_third_can_use(
    tmp_path: Path, store: FolderStore
) -> None:
    both = [threading.Thread(target=encode_missing, args=(Shelves(tmp_path / name, store),)) for name in ("a", "b")]
    for one in both:
        one.start()
    for one in both:
        one.join()
    _, missing = encode_missing(Shelves(tmp_path / "third", store))
    assert missing == []


def _mapped_and_removed(folder: Path) -> int:
    """Files of the folder that are on the disk for a map of them alone."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return len({line.split(maxsplit=5)[5] for line in maps if str(folder) in line and line.endswith("(deleted)")})
