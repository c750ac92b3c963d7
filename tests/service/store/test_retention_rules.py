"""Whatever a policy says, nothing that somebody needs goes; and what a policy promises to keep stays."""

from datetime import UTC, datetime, timedelta
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from service.store.orphan_rules import Owner, Stored, orphans
from service.store.retention_rules import Candidate, Need, Policy, verdicts

NOW = datetime(2026, 11, 28, tzinfo=UTC)
needs: st.SearchStrategy[frozenset[Need]] = st.frozensets(st.sampled_from(get_args(Need)))
policies = st.builds(
    Policy,
    keep_last=st.none() | st.integers(0, 4),
    keep_best=st.booleans(),
    ttl_days=st.none() | st.floats(0.1, 20),
    unfinished_days=st.none() | st.floats(0.1, 20),
)


@st.composite
def jobs(draw: st.DrawFn) -> list[Candidate]:
    steps = draw(st.lists(st.integers(1, 50), unique=True, max_size=8))
    best, result = (draw(st.sampled_from([None, *steps])) for _ in range(2))
    return [
        Candidate(
            id=f"ckpt_{step}",
            step=step,
            created_at=NOW - timedelta(days=draw(st.floats(0, 30))),
            is_best=step == best,
            is_result=step == result,
            is_pinned=draw(st.booleans()),
            needed_by=draw(needs),
        )
        for step in steps
    ]


@settings(deadline=None)
@given(
    job=jobs(),
    policy=policies,
    has_ended=st.booleans(),
    may_resume=st.booleans(),
    unfinished=st.none() | st.floats(0, 30),
)
def test_nothing_that_is_needed_is_ever_chosen(
    job: list[Candidate], policy: Policy, has_ended: bool, may_resume: bool, unfinished: float | None
) -> None:
    since = None if unfinished is None else NOW - timedelta(days=unfinished)
    found = verdicts(
        job, policy, has_ended=has_ended, may_resume=may_resume, time=NOW, unfinished_since=since if has_ended else None
    )
    given_up = (
        since is not None
        and policy.unfinished_days is not None
        and NOW - since > timedelta(days=policy.unfinished_days)
    )
    assert {one.id for one in found} == {one.id for one in job}, "each gets one verdict"
    by_id = {one.id: one for one in job}
    for verdict in found:
        if verdict.goes:
            one = by_id[verdict.id]
            assert has_ended
            assert not one.is_pinned
            assert not one.needed_by
            assert (verdict.reason == "unfinished") is given_up
            if given_up:
                continue
            assert not may_resume
            assert policy.keep_last is not None or policy.ttl_days is not None
            is_old = policy.ttl_days is not None and NOW - one.created_at > timedelta(days=policy.ttl_days)
            assert (verdict.reason == "older_than_ttl") is is_old
            assert is_old or not one.is_result
            assert is_old or not (one.is_best and policy.keep_best)


@settings(deadline=None)
@given(job=jobs(), keep_last=st.integers(0, 4))
def test_so_many_of_the_latest_stay_and_no_more_than_are_kept_for_a_reason(
    job: list[Candidate], keep_last: int
) -> None:
    found = verdicts(job, Policy(keep_last), has_ended=True, may_resume=False, time=NOW)
    steps = sorted(one.step for one in job)
    latest = {f"ckpt_{step}" for step in steps[max(0, len(steps) - keep_last) :]}
    going = {one.id for one in found if one.goes}
    assert not latest & going
    kept_for_a_reason = {
        one.id for one in job if one.is_best or one.is_result or one.is_pinned or one.needed_by or one.id in latest
    }
    assert going == {one.id for one in job} - kept_for_a_reason


keys = st.builds(
    "projects/p/{}/o/{}".format,
    st.sampled_from(["jobs", "datasets", "prompt_sets", "evaluations"]),
    st.sampled_from(
        [
            *(f"checkpoints/{step}/attempt-{attempt}/weights" for step in (2, 4) for attempt in (1, 2, 3)),
            *("samples/2/attempt-1.png", "samples/2/attempt-3.png", "reports/4/attempt-2.html"),
            *("proof/attempt-1/shards/a", "proof/attempt-3/scores.parquet"),
            *("exports/c/exp_1/attempt-1/a", "exports/c/exp_2/attempt-1/a", "data.parquet", "latents/n/s", "new/thing"),
        ]
    ),
)
owners = st.none() | st.builds(
    Owner,
    names_all=st.booleans(),
    keys=st.frozensets(keys),
    running_attempt=st.none() | st.integers(1, 3),
    open_exports=st.frozensets(st.sampled_from(["exp_1", "exp_2"])),
)


@settings(deadline=None)
@given(found=st.lists(st.tuples(keys, st.floats(0, 10)), max_size=8), owner=owners, grace=st.floats(0, 5))
def test_no_object_goes_that_a_row_names_that_is_on_its_way_or_that_is_young(
    found: list[tuple[str, float]], owner: Owner | None, grace: float
) -> None:
    ages = dict(found)
    stored = [Stored(key, NOW - timedelta(days=age)) for key, age in ages.items()]
    for key, reason in orphans(stored, owner, NOW, timedelta(days=grace)):
        assert ages[key] > grace
        assert not key.startswith("projects/p/evaluations/"), "a form that is not known is somebody else's"
        assert (owner is None) is (reason == "owner_is_gone")
        if owner is not None:
            assert owner.names_all
            assert key not in owner.keys
            assert f"/attempt-{owner.running_attempt}" not in key or "/exports/" in key
            assert not any(f"/{one}/" in key for one in owner.open_exports)
            assert not key.endswith("new/thing")
