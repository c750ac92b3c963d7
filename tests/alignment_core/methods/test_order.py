"""The order of examples: every one once an epoch, of the seed and the position alone, and of few blocks at a time where asked for."""

from collections import Counter
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from alignment_core.datasets.shard_store import FolderStore
from alignment_core.datasets.shelf import Shelves
from alignment_core.methods.draws import micro_batches
from alignment_core.methods.order import Blocks, indices_of_step, order_of_epoch
from alignment_core.seeds import permutation_of
from alignment_core.spec import JobSpec
from alignment_core.timesteps.strategies import UniformTimesteps
from tests.alignment_core.datasets.test_lookahead import Foreseen, Layout
from tests.alignment_core.datasets.test_shelf import encode_missing, places_of, shards_in

MANY = Blocks(rows=10, window=6)
SIZE = 1003  # the last block is a short one


def alive(order: list[int], rows: int) -> list[int]:
    """How many blocks are between their first and their last example, at each position."""
    blocks = [index // rows for index in order]
    first = {block: position for position, block in reversed(list(enumerate(blocks)))}
    last = {block: position for position, block in enumerate(blocks)}
    begun = Counter(first.values())
    ended = Counter(position + 1 for position in last.values())
    now, found = 0, []
    for position in range(len(order)):
        now += begun[position] - ended[position]
        found.append(now)
    return found


@given(size=st.integers(1, 300), rows=st.integers(1, 40), window=st.integers(2, 12), seed=st.integers(0, 9))
def test_every_example_comes_once_and_no_more_blocks_than_a_window_are_open(
    size: int, rows: int, window: int, seed: int
) -> None:
    order = list(order_of_epoch(size, seed, 0, Blocks(rows, window)))
    assert sorted(order) == list(range(size))
    if rows * window < size:
        assert max(alive(order, rows)) <= window


def test_half_a_window_is_mixed_from_the_first_example_to_the_last() -> None:
    order = list(order_of_epoch(SIZE, 0, 0, MANY))
    counts = [len({index // MANY.rows for index in order[start : start + 60]}) for start in range(0, SIZE - 60, 20)]
    assert min(counts) >= MANY.window // 2
    assert counts[len(counts) // 2] > MANY.window


def test_examples_of_a_block_are_spread_over_a_window() -> None:
    order = torch.tensor(order_of_epoch(100_000, 0, 0, Blocks(100, 20)))
    position = torch.empty_like(order)
    position[order] = torch.arange(len(order))
    apart = position.reshape(1000, 100).double().std(dim=1) / 100  # in blocks
    assert apart.mean() == pytest.approx(20 / 12**0.5, rel=0.05)  # as of a uniform share of twenty


def test_epochs_and_seeds_have_orders_of_their_own_and_a_run_that_goes_on_has_the_same() -> None:
    orders = [tuple(order_of_epoch(SIZE, seed, epoch, MANY)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
    assert tuple(order_of_epoch(SIZE, 0, 1, MANY)) == orders[1]
    steps = [indices_of_step(SIZE, 64, step, 0, MANY) for step in range(32)]
    assert [index for step in steps for index in step][: 2 * SIZE] == [*orders[0], *orders[1]]


def test_a_window_that_holds_everything_shuffles_as_without_blocks() -> None:
    assert order_of_epoch(60, 0, 2, Blocks(10, 6)) == permutation_of(60, 0, "order", 2) == order_of_epoch(60, 0, 2)


@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_processes_visit_the_same_examples_in_each_step(num_processes: int) -> None:
    data = Foreseen(looks_ahead=False)
    accumulation = 4 // num_processes

    def of_rank(rank: int) -> list[list[int]]:
        layout = Layout(rank, accumulation=accumulation, num_processes=num_processes)
        indices = lambda step, _: indices_of_step(SIZE, 8, step, 3, MANY)  # noqa: E731
        drawn = micro_batches(layout, "dpo", UniformTimesteps(1000), indices, data, 5)
        return [batch.indices for batch in islice(drawn, 3 * accumulation)]

    each = [of_rank(rank) for rank in range(num_processes)]
    for number in range(3):
        parts = [
            each[rank][number * accumulation + part] for part in range(accumulation) for rank in range(num_processes)
        ]
        assert [index for part in parts for index in part] == indices_of_step(SIZE, 8, 5 + number, 3, MANY)


class Counting(FolderStore):
    """Counts the shards that it gives."""

    num_given = 0

    def get(self, namespace: str, name: str, path: Path) -> None:
        self.num_given += "-" not in name
        super().get(namespace, name, path)


def fetched_in_an_epoch(folder: Path, store: Counting, disk_bytes: int, blocks: Blocks | None) -> int:
    """Shards that 60 steps of four fetch, foreseen as a method's are."""
    num = 240
    cache, _ = encode_missing(Shelves(folder, store, disk_bytes), num)
    places, reader = places_of(cache, list(range(num))), cache.reader()
    store.num_given = 0
    steps = [indices_of_step(num, 4, step, 0, blocks) for step in range(61)]
    reader.foresee(places[steps[0]])
    for now, coming in pairwise(steps):
        reader.foresee(places[coming])
        assert reader.read(places[now])["mean"][:, 0, 0, 0].tolist() == now
    return store.num_given


def test_on_a_disk_of_a_quarter_of_the_set_blocks_fetch_a_shard_once_an_epoch(tmp_path: Path) -> None:
    store = Counting(tmp_path / "store")
    encode_missing(Shelves(tmp_path / "first", store), 240)
    shards = shards_in(tmp_path / "store")
    disk_bytes = len(shards) // 4 * max(path.stat().st_size for path in shards)
    whole, blocks = (
        fetched_in_an_epoch(tmp_path / name, store, disk_bytes, order)
        for name, order in (("second", None), ("third", Blocks(rows=12, window=3)))
    )
    assert blocks <= 1.1 * len(shards)
    assert whole > 2 * len(shards)


PAIRS: dict[str, Any] = {"dataset": {"type": "local", "path": "/pairs"}}
ONLINE: dict[str, Any] = {"prompts": ["a"], "rewards": [{"type": "colorfulness"}]}


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ({"type": "tailorpo", **ONLINE}, "has no data to visit"),
        ({"type": "diffusion_kto", **PAIRS}, "set method.like_probability to null"),
    ],
)
def test_what_visits_no_epochs_is_refused(method: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        JobSpec.model_validate({"model": "a", "method": method, "training": {"block_shuffle": {}}})


@pytest.mark.parametrize(
    "method", [{"type": "diffusion_dpo"}, {"type": "mapo"}, {"type": "diffusion_kto", "like_probability": None}]
)
def test_every_method_on_preference_data_may_be_visited_in_blocks(method: dict[str, Any], tmp_path: Path) -> None:
    given = {"model": "a", "method": {**method, **PAIRS}}
    spec = JobSpec.model_validate({**given, "training": {"block_shuffle": {}}})
    assert spec.training.block_shuffle is not None
    assert JobSpec.model_validate(given).sha256() != spec.sha256()
