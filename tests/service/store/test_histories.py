"""Random histories of the whole service, on both databases: every claim of docs/reliability.md holds after every step.

And the other way round: of store functions that are wrong in one place, every one is found out.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.histories import run
from benchmarks.simulation.broken import VARIANTS
from benchmarks.simulation.machine import histories_on
from benchmarks.simulation.world import World

NewWorld = Callable[[], World]


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    made = World(database_url, tmp_path / "world")
    yield made
    made.close()


@pytest.fixture
def sqlite_world(sqlite_template: bytes, tmp_path: Path) -> Iterator[World]:
    (tmp_path / "attune.sqlite3").write_bytes(sqlite_template)
    made = World(f"sqlite:///{tmp_path / 'attune.sqlite3'}", tmp_path / "world")
    yield made
    made.close()


def test_the_claims_hold_in_short_histories(world: World) -> None:
    run(histories_on(world), seed_=1, histories=10, steps=25)
    assert world.num_steps > 100


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_store_that_is_wrong_is_found_out(sqlite_world: World, variant: str) -> None:
    with VARIANTS[variant](), pytest.raises((AssertionError, BaseExceptionGroup)):
        run(histories_on(sqlite_world), seed_=1, histories=300, steps=50, shrinks=False)
