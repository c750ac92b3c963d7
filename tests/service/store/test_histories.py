"""Random histories of the whole service, on both databases: every claim of `benchmarks/simulation/claims.py` holds after every step.

And the other way round: of store functions that are wrong in one place, every one is found out.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest
from sqlalchemy.exc import IntegrityError

from benchmarks.histories import run
from benchmarks.simulation import (
    asking,
    deletions,
    hooks,
    house,
    jobs_at_work,
    judged_data,
    judges,
    keeping,
    runs,
    submits,
)
from benchmarks.simulation.broken import VARIANTS
from benchmarks.simulation.fragile import Death
from benchmarks.simulation.machine import begin, histories_on
from benchmarks.simulation.rules.beginnings import there_are
from benchmarks.simulation.rules.workers import DAY
from benchmarks.simulation.world import World
from service.store.retention_rules import Policy
from service.store.states import STATES, TRANSITIONS, JobState, Verb

NEVER = {*((verb, "validating") for verb in get_args(Verb)), ("fail", "queued"), ("fail", "paused")}
"""No job is created in `validating`, and only a worker's attempt fails."""


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[World]:
    made = World(database_url, tmp_path / "world")
    yield made
    made.close()


def stop(verb: asking.Stop) -> Callable[[World], None]:
    return lambda world: asking.stop(world, 0, verb, "last_step", None)


def end(how: jobs_at_work.End) -> Callable[[World], None]:
    return lambda world: jobs_at_work.end(world, 0, how, True, None)


def claim(world: World) -> None:
    jobs_at_work.claim(world, 0, None)


def start(world: World) -> None:
    runs.start(world, 0, None)


def complete(world: World) -> None:
    runs.complete(world, 0, None)


WAYS: dict[JobState, list[Callable[[World], None]]] = {
    "starting": [],
    "running": [start],
    "finalizing": [start, complete],
    "pausing": [stop("pause")],
    "cancelling": [stop("cancel")],
    "queued": [end("give_back")],
    "paused": [end("give_back"), stop("pause")],
    "cancelled": [end("give_back"), stop("cancel")],
    "failed": [end("failed")],
    "succeeded": [end("succeeded")],
}
DOING: dict[Verb, Callable[[World], None]] = {
    "cancel": stop("cancel"),
    "pause": stop("pause"),
    "resume": stop("resume"),
    "claim": claim,
    "begin": start,
    "finalize": complete,
    "succeed": end("succeeded"),
    "stop": end("stopped"),
    "fail": end("failed"),
    "give_back": end("give_back"),
    "suspend": end("suspend"),
}


@pytest.mark.slow
@pytest.mark.parametrize("state", WAYS)
def test_a_state_leads_where_the_table_says_and_nowhere_else(sqlite_world: World, state: JobState) -> None:
    """Each verb from each state: what is in the table is done, and what is not changes no state."""
    world = sqlite_world
    for verb, do in DOING.items():
        begin(world)
        for step in WAYS[state]:
            step(world)
        (job,) = world.told.jobs.values()
        assert job.state == state
        world.told.taken.clear()
        do(world)
        world.check()
        is_in_table = state in TRANSITIONS[verb]
        assert job.state == (TRANSITIONS[verb][state] if is_in_table and (verb, state) not in NEVER else state)
        assert world.told.taken.total() == (is_in_table and (verb, state) not in NEVER)


def test_every_state_but_one_is_reached() -> None:
    assert set(STATES) - set(WAYS) == {"validating"}


def test_the_claims_hold_in_short_histories(world: World) -> None:
    run(histories_on(world), seed_=1, histories=10, steps=25)
    assert world.num_steps > 100


@pytest.mark.slow
def test_the_claims_hold_in_long_histories_and_each_rule_is_taken(world: World) -> None:
    machine = histories_on(world)
    run(machine, seed_=6, histories=100, steps=50)
    taken = {name for name, _ in world.rules.items()}
    assert len(taken) > 60, f"histories that do little show little: {sorted(taken)}"
    assert len(world.verbs) > 14, f"histories that do little show little: {sorted(world.verbs)}"


def lost_and_claimed_again(world: World) -> None:
    world.clock.pass_by(61)
    house.sweep(world, None)
    claim(world)


def renew_late(world: World) -> None:
    lost_and_claimed_again(world)
    jobs_at_work.renew(world, 1)


def end_late(world: World) -> None:
    lost_and_claimed_again(world)
    jobs_at_work.end(world, 1, "give_back", False, None)


def delete_the_stem_of_a_fork(world: World) -> None:
    runs.train(world, 0, 1, ends=True)
    submits.submit(world, 0, "resume", 1, None)
    deletions.delete(world, "a checkpoint", 0, even_result=True, death=None)


def save_anew(world: World) -> None:
    runs.train(world, 0, 1, ends=False)
    lost_and_claimed_again(world)
    runs.save(world, 0, False, False, None)
    world.clock.pass_by(1.1 * DAY)
    house.remove(world, None)


def pin_under_a_policy(world: World) -> None:
    runs.train(world, 0, 1, ends=True)
    keeping.pin(world, 0, is_pinned=True)
    keeping.set_policy(world, 1, Policy(ttl_days=0.5))
    world.clock.pass_by(1.1 * DAY)
    house.let_go(world, None)


def delete_the_champion(world: World) -> None:
    runs.train(world, 0, 1, ends=True)
    keeping.promote(world, 0, "champion", force=True, death=None)
    deletions.delete(world, "a checkpoint", 0, even_result=True, death=None)


def look_for_orphans(world: World) -> None:
    runs.train(world, 0, 1, ends=False)
    world.clock.pass_by(2 * DAY)
    house.remove_orphans(world, None)


def feed_twice(world: World) -> None:
    submits.sweep(world, 0, 3, 1, None)
    house.feed(world, None)


def resume_for_good(world: World) -> None:
    jobs_at_work.end(world, 0, "failed", False, None)
    asking.stop(world, 0, "resume", "last_step", None)


def delete_what_a_trial_to_come_names(world: World) -> None:
    runs.train(world, 0, 1, ends=True)
    submits.sweep(world, 0, 3, 1, Death("before"))  # whoever made it died before any trial was queued
    awaited = [one for one in [*world.told.datasets, *world.told.prompt_sets] if world.told.is_awaited(one)]
    assert awaited
    assert not [one for one in awaited if world.told.users_of(one)]
    for index in range(len(world.told.datasets)):
        deletions.delete(world, "an upload", index, even_result=False, death=None)
    assert {*awaited} <= {*world.told.datasets, *world.told.prompt_sets}


def test_what_a_trial_to_come_names_is_kept_and_the_record_knows_why(sqlite_world: World) -> None:
    live_through(sqlite_world, delete_what_a_trial_to_come_names)


def sweep_on_what_was_deleted(world: World) -> None:
    runs.train(world, 0, 1, ends=True)
    deletions.delete(world, "an upload", 0, even_result=False, death=None)
    assert not world.told.datasets
    submits.sweep(world, 0, 1, 1, None)


def test_a_sweep_on_what_was_deleted_is_refused_and_the_record_knows_why(sqlite_world: World) -> None:
    live_through(sqlite_world, sweep_on_what_was_deleted)


def end_beside_a_webhook(world: World) -> None:
    hooks.add(world, None)
    jobs_at_work.end(world, 0, "succeeded", False, None)


def answer_late(world: World) -> None:
    end_beside_a_webhook(world)
    hooks.send(world, None)
    world.clock.pass_by(61)
    hooks.send(world, None)
    hooks.answer(world, 1, "good", None)


def redeliver(world: World) -> None:
    end_beside_a_webhook(world)
    hooks.send(world, None)
    hooks.answer(world, 0, "good", None)
    hooks.redeliver(world, 0, None)
    hooks.send(world, None)


def send_to_one_that_is_off(world: World) -> None:
    end_beside_a_webhook(world)
    hooks.change(world, 0, "off", None)
    hooks.send(world, None)


def take_a_vote_back(world: World) -> None:
    there_are(world, "a labeling")
    judges.vote(world, 0, "ada", "tie", 1, None)
    judges.vote(world, 0, "ada", None, 1, None)


def ask_for_data_again(world: World) -> None:
    there_are(world, "a labeling")
    judges.vote(world, 0, "ada", "first", 1, None)
    judged_data.make(world, 0, "drop", Death("after", 1))
    judges.vote(world, 0, "bob", "second", 1, None)
    judged_data.make_again(world, 0, None)
    judged_data.check(world)


DIRECTED: dict[str, Callable[[World], None]] = {
    "an old attempt may end the job": end_late,
    "an old attempt may renew": renew_late,
    "aliases hold nothing": delete_the_champion,
    "forks hold nothing": delete_the_stem_of_a_fork,
    "attempts share a folder": save_anew,
    "retention ignores pins": pin_under_a_policy,
    "orphans are whatever lies there": look_for_orphans,
    "sweeps queue everything": feed_twice,
    "every failure can be resumed": resume_for_good,
    "webhooks hear nothing": end_beside_a_webhook,
    "an old sender may record": answer_late,
    "what is sent again has another id": redeliver,
    "webhooks that are off are called": send_to_one_that_is_off,
    "a vote that is taken back stays": take_a_vote_back,
    "a data set follows later votes": ask_for_data_again,
}
WRONG = (AssertionError, IntegrityError, BaseExceptionGroup)  # of an alias on what is gone the database itself says so


def live_through(world: World, history: Callable[[World], None]) -> None:
    begin(world)
    history(world)
    world.check()


@pytest.mark.parametrize("variant", DIRECTED)
def test_a_store_that_is_wrong_is_found_out_by_the_history_that_it_is_about(sqlite_world: World, variant: str) -> None:
    live_through(sqlite_world, DIRECTED[variant])
    with VARIANTS[variant](), pytest.raises(WRONG):
        live_through(sqlite_world, DIRECTED[variant])


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_a_variant_replaces_is_there(variant: str) -> None:
    with VARIANTS[variant]():
        pass


@pytest.mark.slow
@pytest.mark.parametrize("variant", [one for one in VARIANTS if one not in DIRECTED])
def test_a_store_that_is_wrong_is_found_out_by_chance(sqlite_world: World, variant: str) -> None:
    with VARIANTS[variant](), pytest.raises(WRONG):
        run(histories_on(sqlite_world), seed_=1, histories=300, steps=50, shrinks=False)
