"""Histories that broke a claim once, shrunk to the steps that it took."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.simulation import deletions, house, jobs_at_work, submits
from benchmarks.simulation.fragile import Death
from benchmarks.simulation.machine import begin
from benchmarks.simulation.rules.workers import DAY
from benchmarks.simulation.world import World


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    made = World(database_url, tmp_path / "world")
    begin(made)
    yield made
    made.close()


def test_a_picture_that_is_deleted_and_drawn_again_at_once_stays(world: World) -> None:
    jobs_at_work.start(world, 0, None)
    jobs_at_work.draw(world, 0, None)
    deletions.delete(world, "an output", 0, even_result=False, death=None)
    jobs_at_work.draw(world, 0, None)
    house.remove(world, None)
    world.check()
    world.clock.pass_by(1.1 * DAY)
    house.remove(world, None)
    world.check()


def test_a_picture_that_was_deleted_while_its_job_ran_goes_a_day_later(world: World) -> None:
    jobs_at_work.start(world, 0, None)
    jobs_at_work.draw(world, 0, None)
    deletions.delete(world, "an output", 0, even_result=False, death=None)
    world.clock.pass_by(1.1 * DAY)
    house.remove(world, None)
    assert not [key for key in world.objects.all_keys() if "/samples/" in key]


def evaluation_at_work(world: World) -> None:
    """Of a job's checkpoint; as the latest of all attempts."""
    jobs_at_work.train(world, 0, 1, ends=True)
    submits.evaluate(world, 0, None)
    jobs_at_work.claim(world, 0, None)
    jobs_at_work.start(world, 0, None)


def next_attempt(world: World) -> None:
    world.clock.pass_by(61)
    house.sweep(world, None)
    jobs_at_work.claim(world, 0, None)
    jobs_at_work.start(world, 0, None)


def test_what_an_evaluation_drew_and_had_no_row_for_is_an_orphan_once_its_attempt_is_lost(world: World) -> None:
    evaluation_at_work(world)
    jobs_at_work.draw(world, 0, Death("before"))
    next_attempt(world)
    world.clock.pass_by(2 * DAY)
    house.remove_orphans(world, None)
    world.check()
    assert not [key for key in world.objects.all_keys() if "/proof/attempt-1/" in key]


def test_what_a_later_attempt_at_an_evaluation_drew_anew_takes_the_earlier_ones_place(world: World) -> None:
    evaluation_at_work(world)
    jobs_at_work.draw(world, 0, None)
    jobs_at_work.report(world, 0, None)
    next_attempt(world)
    jobs_at_work.draw(world, 0, None)
    jobs_at_work.report(world, 0, None)
    world.check()
    world.clock.pass_by(1.1 * DAY)
    house.remove(world, None)
    world.check()
    assert not [key for key in world.objects.all_keys() if "/proof/attempt-1/" in key]


def test_seconds_are_counted_once_though_the_clock_of_a_run_is_set_back(world: World) -> None:
    jobs_at_work.start(world, 0, None)
    world.clock.pass_by(50)
    jobs_at_work.change_phase(world, 0, 0.0)
    jobs_at_work.change_phase(world, 0, -40.0)
    world.clock.pass_by(5)
    jobs_at_work.end(world, 0, "stopped", False, None)
    jobs_at_work.end(world, 0, "succeeded", False, None)
    world.check()
