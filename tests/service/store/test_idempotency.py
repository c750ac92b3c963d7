from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from alignment_core.spec import JobSpec
from service.store import idempotency, jobs, projects
from service.store.database import Store
from service.store.idempotency import Fresh, InFlight, KeyReused, Replay
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT

FIRST, OTHER = "1" * 64, "2" * 64


def begin(store: Store, request: str = FIRST, project: str = PROJECT, **options) -> Fresh | Replay:
    return idempotency.begin(store, project, "key-1", request, "job", **options)


def test_the_same_request_gets_the_first_answer_again(store: Store) -> None:
    fresh = begin(store)
    assert isinstance(fresh, Fresh)
    assert fresh.resource_id.startswith("job_")
    body = {"id": fresh.resource_id, "nested": [1, {"a": None}]}
    idempotency.complete(store, PROJECT, "key-1", 201, body)
    assert begin(store) == begin(store) == Replay(201, body)


def test_another_request_under_the_same_key_is_refused(store: Store) -> None:
    begin(store)
    with pytest.raises(KeyReused):
        begin(store, OTHER)
    idempotency.complete(store, PROJECT, "key-1", 201, {})
    with pytest.raises(KeyReused):
        begin(store, OTHER)


def test_a_request_in_flight_is_not_begun_twice(store: Store) -> None:
    begin(store)
    with pytest.raises(InFlight):
        begin(store)


def test_a_request_that_failed_leaves_its_key_free(store: Store) -> None:
    begin(store)
    idempotency.abandon(store, PROJECT, "key-1")
    assert isinstance(begin(store, OTHER), Fresh)


def test_an_answered_key_cannot_be_abandoned(store: Store) -> None:
    begin(store)
    idempotency.complete(store, PROJECT, "key-1", 201, {})
    idempotency.abandon(store, PROJECT, "key-1")
    assert begin(store) == Replay(201, {})


def test_a_request_whose_process_died_is_begun_again_without_a_second_job(store: Store, spec: JobSpec) -> None:
    first = begin(store)
    assert isinstance(first, Fresh)
    job = jobs.create(store, project_id=PROJECT, spec=spec, job_id=first.resource_id)
    again = begin(store, in_flight_seconds=-1)
    assert again == first
    assert isinstance(again, Fresh)
    assert jobs.create(store, project_id=PROJECT, spec=spec, job_id=again.resource_id) == job


def test_projects_do_not_share_keys(store: Store) -> None:
    other = projects.create_project(store, "other").id
    begin(store)
    assert isinstance(begin(store, OTHER, project=other), Fresh)


def test_old_keys_are_forgotten(store: Store) -> None:
    begin(store)
    assert idempotency.forget_old(store, after_seconds=3600) == 0
    assert idempotency.forget_old(store, after_seconds=-1) == 1
    assert isinstance(begin(store, OTHER), Fresh)


def test_of_requests_that_race_one_begins(store: Store) -> None:
    barrier = Barrier(8)

    def race(_: int) -> str:
        barrier.wait()
        try:
            begin(store)
        except InFlight:
            return "in flight"
        return "fresh"

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(race, range(8))) == ["fresh", *["in flight"] * 7]
