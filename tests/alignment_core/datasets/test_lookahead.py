"""Shards of the next step are on their way while a step is taken, and nothing else about a run changes."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest
import torch

from alignment_core.datasets.cache import ShardReader
from alignment_core.datasets.lookahead import Lookahead
from alignment_core.datasets.shard_store import FolderStore
from alignment_core.datasets.shelf import Shelves
from alignment_core.methods.draws import MicroBatch, micro_batches
from alignment_core.methods.order import indices_of_step
from alignment_core.timesteps.strategies import UniformTimesteps
from tests.alignment_core.datasets.test_shelf import encode_missing, places_of, shards_in

LIMIT_IN_SHARDS = 8


class Watched(FolderStore):
    """Says which shards whose thread has fetched."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.fetched: list[tuple[bool, str]] = []

    def get(self, namespace: str, name: str, path: Path) -> None:
        super().get(namespace, name, path)
        if "-" not in name:
            self.fetched.append((threading.current_thread() is threading.main_thread(), name))


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    store = Watched(tmp_path / "store")
    encode_missing(Shelves(tmp_path / "first", store))
    return store


@pytest.fixture
def bounded(tmp_path: Path, store: Watched) -> tuple[ShardReader, Callable[[list[int]], torch.Tensor]]:
    """A reader on a disk that holds every other shard after its start, and where numbers are."""
    a_shard = max(path.stat().st_size for path in shards_in(tmp_path / "store"))
    cache, missing = encode_missing(Shelves(tmp_path / "second", store, LIMIT_IN_SHARDS * a_shard // 2))
    assert missing == []
    reader = cache.reader()
    for path in shards_in(tmp_path / "second"):
        path.unlink()
    store.fetched.clear()
    return reader, lambda numbers: places_of(cache, numbers)


def test_what_was_foreseen_is_not_fetched_by_who_reads_it(
    bounded: tuple[ShardReader, Callable[[list[int]], torch.Tensor]], store: Watched
) -> None:
    reader, places = bounded
    steps = [[0, 9], [12, 3], [20, 15], [1, 23]]
    reader.foresee(places(steps[0]))
    for number, step in enumerate(steps):
        for ahead in steps[number + 1 : number + 2]:
            reader.foresee(places(ahead))
        assert reader.read(places(step))["mean"][:, 0, 0, 0].tolist() == step
    assert store.fetched
    assert not any(by_reader for by_reader, _ in store.fetched)


def test_what_was_not_foreseen_is_fetched_when_it_is_read(
    bounded: tuple[ShardReader, Callable[[list[int]], torch.Tensor]], store: Watched
) -> None:
    reader, places = bounded
    reader.foresee(places([0, 9]))
    assert reader.read(places([20, 5]))["mean"][:, 0, 0, 0].tolist() == [20, 5]
    assert reader.read(places([0, 9]))["mean"][:, 0, 0, 0].tolist() == [0, 9]
    assert any(by_reader for by_reader, _ in store.fetched)


def test_a_shard_that_is_foreseen_twice_comes_once_while_it_is_here(tmp_path: Path, store: Watched) -> None:
    shelf = Shelves(tmp_path / "third", store, 10**6).of(next((tmp_path / "store").iterdir()).name)
    name = shards_in(tmp_path / "store")[0].stem
    for _ in range(3):
        shelf.fetch_ahead(name)
    shelf.path(name)
    shelf.fetch_ahead(name)
    assert [one for _, one in store.fetched] == [f"{name}.safetensors"]


def test_no_more_is_fetched_ahead_than_has_room(tmp_path: Path) -> None:
    class Counting:
        """A shelf with room for two."""

        room_ahead = 2

        def __init__(self) -> None:
            self.begun: list[str] = []

        def fetch_ahead(self, name: str) -> None:
            self.begun.append(name)

    shelf = Counting()
    ahead = Lookahead(shelf)
    ahead.foresee(list("abcde"))
    assert shelf.begun == ["a", "b"]
    ahead.read("a")
    assert shelf.begun == ["a", "b", "c"]
    ahead.read("z")  # nobody foresaw it
    assert shelf.begun == ["a", "b", "c"]
    ahead.read("d")  # and so b and c were passed over
    assert shelf.begun == ["a", "b", "c", "e"]
    ahead.read("e")
    ahead.foresee(["f"])
    assert shelf.begun[-1] == "f"


@dataclass(frozen=True)
class Layout:
    """Two processes with two micro-batches of two examples each."""

    rank: int
    batch_size: int = 2
    accumulation: int = 2
    num_processes: int = 2
    seed: int = 3
    caption_dropout: float = 0.0
    num_draws: int | None = None
    num_examples: int = 10


class Foreseen:
    """Data that only listens; reads as a method's data does."""

    def __init__(self, *, looks_ahead: bool) -> None:
        self.looks_ahead, self.said = looks_ahead, list[list[int]]()

    def __len__(self) -> int:
        return 10

    def foresee(self, indices: Sequence[int]) -> None:
        self.said.append(list(indices))


def drawn(data: Foreseen, first_step: int, num: int, rank: int = 0) -> list[MicroBatch]:
    layout = Layout(rank)
    strategy = UniformTimesteps(1000)
    indices = lambda step, _: indices_of_step(len(data), 8, step, 3)  # noqa: E731
    return list(islice(micro_batches(layout, "dpo", strategy, indices, data, first_step), num))


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("first_step", [0, 3])
def test_the_examples_of_a_step_are_foreseen_a_step_ahead_in_their_order(rank: int, first_step: int) -> None:
    data = Foreseen(looks_ahead=True)
    batches = drawn(data, first_step, 6, rank)
    assert data.said[:6] == [batch.indices for batch in batches]
    assert len(data.said) == 8  # of the step after the three that were drawn


def test_looking_ahead_changes_no_draw() -> None:
    ahead, not_ahead = drawn(Foreseen(looks_ahead=True), 0, 6), drawn(Foreseen(looks_ahead=False), 0, 6)
    for one, other in zip(ahead, not_ahead, strict=True):
        assert one.indices == other.indices
        assert torch.equal(one.timesteps, other.timesteps)
        assert torch.equal(one.dropped, other.dropped)
    assert Foreseen(looks_ahead=False).said == []
