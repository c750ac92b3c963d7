"""The same seed lives the same histories: hypothesis replays what it has found, and refuses what then goes another way."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.histories import run
from benchmarks.simulation import deletions, uploads
from benchmarks.simulation.machine import Histories, begin, histories_on
from benchmarks.simulation.world import World

ID = re.compile(r"[a-z]{2,6}_[0-9a-hjkmnp-tv-z]{26}")


@pytest.fixture
def world(sqlite_template: bytes, tmp_path: Path) -> Iterator[World]:
    (tmp_path / "attune.sqlite3").write_bytes(sqlite_template)
    made = World(f"sqlite:///{tmp_path / 'attune.sqlite3'}", tmp_path / "world")
    yield made
    made.close()


def lived(world: World, *, seed: int) -> list[str]:
    """Every step by its name and what the record says after it, ids replaced by their places in it."""
    steps: list[str] = []

    def took(self: Histories, name: str) -> None:
        Histories.took(self, name)
        steps.append(f"{name}: {_said(world)}")

    run(type("Seen", (histories_on(world),), {"took": took}), seed_=seed, histories=40, steps=50)
    return steps


def _said(world: World) -> str:
    record = world.told
    made = [*record.datasets, *record.prompt_sets, *record.jobs, *record.checkpoints, *record.sweeps]
    places = {one: str(place) for place, one in enumerate(made)}
    told = (record.datasets, record.prompt_sets, record.jobs, record.checkpoints, world.clock.time)
    text = ID.sub(lambda found: places.get(found[0], "another"), re.sub(r"[0-9a-f]{32}", "random", repr(told)))
    return " ".join(sorted(re.findall(r"[^\s,(){}\[\]\"]+", text)))  # what is in a set is said in any order


@pytest.mark.slow
def test_the_same_seed_lives_the_same_histories(world: World) -> None:
    once, again = lived(world, seed=1), lived(world, seed=1)
    assert len(once) > 1000
    assert again == once


def test_a_number_chooses_by_age_and_not_by_what_ids_happen_to_be(world: World) -> None:
    begin(world)
    for _ in range(6):
        uploads.go_on(world, "prompts", 0, None)
    made = [*world.told.prompt_sets]
    left = [_after_deleting_the_newest(world) for _ in made]
    assert left == [made[:number] for number in reversed(range(6))]


def _after_deleting_the_newest(world: World) -> list[str]:
    assert deletions.delete(world, "an upload", 0, even_result=False, death=None)
    world.check()
    return [row.id for row in world.rows["prompt_sets"]]
