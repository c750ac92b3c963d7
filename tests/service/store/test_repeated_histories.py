"""The same seed lives the same histories: hypothesis replays what it has found, and refuses what then goes another way."""

import re

import pytest

from benchmarks.histories import run
from benchmarks.simulation import deletions, uploads
from benchmarks.simulation.machine import Histories, begin, histories_on
from benchmarks.simulation.world import World

ID = re.compile(r"[a-z]{2,6}_[0-9a-hjkmnp-tv-z]{26}")


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
def test_the_same_seed_lives_the_same_histories(sqlite_world: World) -> None:
    once, again = lived(sqlite_world, seed=1), lived(sqlite_world, seed=1)
    assert len(once) > 1000
    assert again == once


def test_a_number_chooses_by_age_and_not_by_what_ids_happen_to_be(sqlite_world: World) -> None:
    begin(sqlite_world)
    for _ in range(6):
        uploads.go_on(sqlite_world, "prompts", 0, None)
    made = [*sqlite_world.told.prompt_sets]
    left = [_after_deleting_the_newest(sqlite_world) for _ in made]
    assert left == [made[:number] for number in reversed(range(6))]


def _after_deleting_the_newest(world: World) -> list[str]:
    assert deletions.delete(world, "an upload", 0, even_result=False, death=None)
    world.check()
    return [row.id for row in world.rows["prompt_sets"]]
