"""Histories that broke a claim once, shrunk to the steps that it took."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.simulation import deletions, house, jobs_at_work, judged_data, judges, runs, submits
from benchmarks.simulation.fragile import Death
from benchmarks.simulation.machine import begin
from benchmarks.simulation.rules.beginnings import there_are
from benchmarks.simulation.rules.workers import DAY
from benchmarks.simulation.world import World


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    made = World(database_url, tmp_path / "world")
    begin(made)
    yield made
    made.close()


def test_a_picture_that_is_deleted_and_drawn_again_at_once_stays(world: World) -> None:
    runs.start(world, 0, None)
    runs.draw(world, 0, None)
    deletions.delete(world, "an output", 0, even_result=False, death=None)
    runs.draw(world, 0, None)
    house.remove(world, None)
    world.check()
    world.clock.pass_by(1.1 * DAY)
    house.remove(world, None)
    world.check()


def test_a_picture_that_was_deleted_while_its_job_ran_goes_a_day_later(world: World) -> None:
    runs.start(world, 0, None)
    runs.draw(world, 0, None)
    deletions.delete(world, "an output", 0, even_result=False, death=None)
    world.clock.pass_by(1.1 * DAY)
    house.remove(world, None)
    assert not [key for key in world.objects.all_keys() if "/samples/" in key]


def evaluation_at_work(world: World) -> None:
    """Of a job's checkpoint; as the latest of all attempts."""
    runs.train(world, 0, 1, ends=True)
    submits.evaluate(world, 0, None)
    jobs_at_work.claim(world, 0, None)
    runs.start(world, 0, None)


def next_attempt(world: World) -> None:
    world.clock.pass_by(61)
    house.sweep(world, None)
    jobs_at_work.claim(world, 0, None)
    runs.start(world, 0, None)


def test_what_an_evaluation_drew_and_had_no_row_for_is_an_orphan_once_its_attempt_is_lost(world: World) -> None:
    evaluation_at_work(world)
    runs.draw(world, 0, Death("before"))
    next_attempt(world)
    world.clock.pass_by(2 * DAY)
    house.remove_orphans(world, None)
    world.check()
    assert not [key for key in world.objects.all_keys() if "/proof/attempt-1/" in key]


def test_what_a_later_attempt_at_an_evaluation_drew_anew_takes_the_earlier_ones_place(world: World) -> None:
    evaluation_at_work(world)
    runs.draw(world, 0, None)
    runs.report(world, 0, None)
    next_attempt(world)
    runs.draw(world, 0, None)
    runs.report(world, 0, None)
    world.check()
    world.clock.pass_by(1.1 * DAY)
    house.remove(world, None)
    world.check()
    assert not [key for key in world.objects.all_keys() if "/proof/attempt-1/" in key]


def test_seconds_are_counted_once_though_the_clock_of_a_run_is_set_back(world: World) -> None:
    runs.start(world, 0, None)
    world.clock.pass_by(50)
    runs.change_phase(world, 0, 0.0)
    runs.change_phase(world, 0, -40.0)
    world.clock.pass_by(5)
    jobs_at_work.end(world, 0, "stopped", False, None)
    jobs_at_work.end(world, 0, "succeeded", False, None)
    world.check()


def test_a_vote_on_a_labeling_that_was_deleted_meanwhile_is_refused(world: World) -> None:
    there_are(world, "a labeling")
    judges.delete(world, 0, None)
    judges.vote(world, 0, "ada", "tie", 1, None)
    judges.vote(world, 0, "ada", None, 1, None)
    world.check()


@pytest.mark.parametrize("death", [Death("object"), Death("after", 1)])
def test_a_data_set_of_votes_that_is_asked_for_again_holds_what_its_row_says(world: World, death: Death) -> None:
    there_are(world, "a labeling")
    judges.vote(world, 0, "ada", "first", 1, None)
    judged_data.make(world, 0, "drop", death)
    judges.vote(world, 0, "bob", "second", 1, None)
    judged_data.make_again(world, 0, None)
    judged_data.check(world)
    world.check()


def test_a_data_set_of_votes_that_were_taken_back_meanwhile_is_still_the_one_that_was_made(world: World) -> None:
    there_are(world, "a labeling")
    judges.vote(world, 0, "ada", "first", 1, None)
    judged_data.make(world, 0, "drop", Death("after", 1))
    judges.vote(world, 0, "ada", None, 1, None)
    judged_data.make_again(world, 0, None)
    judged_data.check(world)
    world.check()
