"""Whose turn it is: jobs in one line, data sets by owner."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event as sa_event

from alignment_core.spec import JobSpec
from service.resource_classes import class_of, parse_classes
from service.store import datasets, jobs, leases, projects, waiting
from service.store.database import Store
from service.store.models import Job
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records.base import JobError
from service.store.records.jobs import JobRecord, QueuePlace
from tests.service.store.plans import explain

NewJob = Callable[[], JobRecord]


def place(store: Store, job: JobRecord) -> QueuePlace | None:
    found = jobs.get(store, job.project_id, job.id)
    assert found is not None
    return found.queue


def test_jobs_go_in_the_order_in_which_they_were_queued(store: Store, new_job: NewJob) -> None:
    queued = [new_job().id for _ in range(4)]
    assert waiting.next_jobs(store, 3) == tuple(queued[:3])
    jobs.request_cancel(store, PROJECT, queued[0])
    leases.claim(store, queued[1], "w", 60)
    assert waiting.next_jobs(store) == (queued[2],)
    assert (waiting.num_jobs(store, 10), waiting.num_jobs(store, 1)) == (2, 1)


def test_a_worker_takes_the_jobs_of_its_classes_alone(store: Store, new_job: NewJob) -> None:
    one, four = new_job(), new_job()
    with store.write() as session:
        session.execute(sa.update(Job).where(Job.id == four.id).values(processes=4))
    small, large = classes = parse_classes("small:1,large:8")
    in_classes, in_small = Store(store.engine, classes), Store(store.engine, classes[:1])
    assert waiting.next_jobs(in_classes, 9, [large]) == (four.id,)
    assert waiting.next_jobs(in_classes, 9, [small]) == (one.id,)
    assert waiting.next_jobs(store, 9) == waiting.next_jobs(in_classes, 9, classes) == (one.id, four.id)
    assert waiting.num_jobs(in_classes, 9, [large]) == 1
    assert [waiting.class_of_job(in_classes, job.id) for job in (one, four)] == [small, large]
    assert waiting.class_of_job(in_small, four.id) is None
    assert waiting.class_of_job(store, four.id) is None


def test_a_row_is_of_the_class_that_its_processes_and_its_memory_say(store: Store, new_job: NewJob) -> None:
    classes = parse_classes("small:1@24GiB,big:1@80GiB,large:8@80GiB,wide:16@40GiB,any:2")
    in_classes = Store(store.engine, classes)
    asked = [(processes, gib) for processes in (1, 2, 9, 17) for gib in (None, 8.0, 24.0, 24.5, 60.0, 100.0)]
    created = [new_job() for _ in asked]
    with store.write() as session:
        for job, (processes, gib) in zip(created, asked, strict=True):
            session.execute(sa.update(Job).where(Job.id == job.id).values(processes=processes, card_gib=gib))
    for one in classes:
        of_class = [job.id for job, each in zip(created, asked, strict=True) if class_of(*each, classes) == one]
        assert list(waiting.next_jobs(in_classes, 99, [one])) == of_class
    of_none = [job for job, each in zip(created, asked, strict=True) if class_of(*each, classes) is None]
    places = [place(in_classes, job) for job in of_none]
    assert places == [QueuePlace(position=index + 1, ahead=index) for index in range(len(of_none))]


def test_an_interrupted_job_goes_on_before_those_that_came_after_it(store: Store, new_job: NewJob) -> None:
    given_back, lost, *later = [new_job() for _ in range(4)]
    leases.claim(store, lost.id, "w", -1)
    leases.claim(store, given_back.id, "w", 60)
    leases.give_back(store, given_back.id, 1)
    leases.requeue_lost(store, 3)
    assert waiting.next_jobs(store, 9) == tuple(job.id for job in (given_back, lost, *later))


def test_a_job_that_its_owner_paused_joins_the_queue_at_its_end(store: Store, new_job: NewJob) -> None:
    first, second = new_job(), new_job()
    jobs.request_pause(store, PROJECT, first.id)
    resumed = jobs.resume(store, PROJECT, first.id)
    assert waiting.next_jobs(store, 9) == (second.id, first.id)
    assert resumed is not None
    assert resumed.queue == QueuePlace(position=2, ahead=1)


def test_a_queued_job_knows_its_place_among_the_jobs_of_all_projects(
    store: Store, spec: JobSpec, new_job: NewJob
) -> None:
    running, paused = new_job(), new_job()
    jobs.request_pause(store, PROJECT, paused.id)
    other = jobs.create(store, project_id=projects.create_project(store, "other").id, spec=spec)
    last = new_job()
    assert last.queue == QueuePlace(position=3, ahead=2)
    leases.claim(store, running.id, "w", 60)
    assert (place(store, running), place(store, paused)) == (None, None)
    assert place(store, other) == QueuePlace(position=1, ahead=1)
    assert place(store, last) == QueuePlace(position=2, ahead=2), "one is queued before it, one is being trained"
    assert {job.id: job.queue for job in jobs.list_jobs(store, PROJECT).data} == {
        running.id: None,
        paused.id: None,
        last.id: QueuePlace(position=2, ahead=2),
    }


def test_a_queued_job_waits_for_those_of_its_own_class(store: Store, new_job: NewJob) -> None:
    in_classes = Store(store.engine, parse_classes("small:1,large:8"))
    running, large, small, another_large, of_no_class = created = [new_job() for _ in range(5)]
    with store.write() as session:
        for job, processes in zip(created, (1, 4, 1, 8, 16), strict=True):
            session.execute(sa.update(Job).where(Job.id == job.id).values(processes=processes))
    leases.claim(store, running.id, "w", 60)
    expected = {
        running.id: None,
        large.id: QueuePlace(position=1, ahead=0),
        small.id: QueuePlace(position=1, ahead=1),
        another_large.id: QueuePlace(position=2, ahead=1),
        of_no_class.id: QueuePlace(position=1, ahead=0),
    }
    assert {job.id: job.queue for job in jobs.list_jobs(in_classes, PROJECT).data} == expected
    assert {job.id: place(in_classes, job) for job in created} == expected
    assert place(store, of_no_class) == QueuePlace(position=4, ahead=4), "without classes all are one line"


def test_the_queue_is_read_along_its_index(store: Store, new_job: NewJob) -> None:
    new_job()
    is_sqlite = store.engine.dialect.name == "sqlite"
    with store.write() as session:
        session.execute(sa.insert(Job), [ended_job(number) for number in range(1000)])
        if not is_sqlite:  # the plan is to follow from these rows, not from the statistics of those of an earlier test
            session.execute(sa.text("ANALYZE jobs"))
    asked = record_queries(store, lambda: jobs.get(store, PROJECT, waiting.next_jobs(store)[0]))
    of_the_queue = [query for query in asked if "jobs.state" in query[0] and "WHERE jobs.id = " not in query[0]]
    assert len(of_the_queue) == 3, "whose turn it is, how many are held, and the place"
    for statement, parameters in of_the_queue:
        plan = explain(store, statement, parameters)
        # which of the indices that know the state counts fastest is the database's to say
        assert "ix_jobs_queue" in plan or "Index Only Scan using ix_jobs_" in plan, plan
        assert "TEMP B-TREE" not in plan
        assert "Sort" not in plan


def ended_job(number: int) -> dict[str, Any]:
    time = datetime.now(UTC)
    some = {"project_id": PROJECT, "spec": {}, "spec_sha256": "", "method": "dpok", "model": "shapes", "labels": {}}
    ended = {"state": "succeeded", "created_at": time, "queued_at": time, "updated_at": time}
    return {**some, **ended, "id": f"job_{number:026}"}


def record_queries(store: Store, action: Callable[[], object]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        found.append((statement, parameters))

    sa_event.listen(store.engine, "before_cursor_execute", note)
    action()
    sa_event.remove(store.engine, "before_cursor_execute", note)
    return found


def upload(store: Store, project_id: str) -> str:
    dataset = datasets.create(store, project_id=project_id, filename="pairs.parquet")
    return datasets.uploaded(store, dataset.id, size_bytes=1, sha256="1" * 64, object_key="k").id


def test_the_owner_with_the_fewest_data_sets_in_work_comes_next(store: Store) -> None:
    other = projects.create_project(store, "other").id
    datasets.create(store, project_id=other, filename="still uploading.parquet")
    many = [upload(store, PROJECT) for _ in range(3)]
    few = upload(store, other)
    taken = []
    for _ in range(4):
        (dataset_id,) = waiting.next_datasets(store)
        assert datasets.claim(store, dataset_id, "w", 60)
        taken.append(dataset_id)
    assert taken == [many[0], few, many[1], many[2]]
    assert waiting.next_datasets(store) == ()
    assert waiting.num_datasets(store, 10) == 0


def test_no_owner_has_more_data_sets_in_work_than_its_share(store: Store) -> None:
    other = projects.create_project(store, "other").id
    many = [upload(store, PROJECT) for _ in range(4)]
    for dataset_id in many[:3]:
        assert waiting.next_datasets(store, most_per_project=3) == (dataset_id,)
        assert datasets.claim(store, dataset_id, "w", 60)
    assert waiting.next_datasets(store, most_per_project=3) == (), "a checker stays free for others"
    few = upload(store, other)
    assert waiting.next_datasets(store, most_per_project=3) == (few,)
    datasets.fail(store, many[0], 1, JobError(code="unreadable", message="no", category="user"))
    datasets.claim(store, few, "w", 60)
    assert waiting.next_datasets(store, most_per_project=3) == (many[3],)


def test_a_lost_checkers_data_set_waits_for_the_sweep_that_counts_the_loss(store: Store) -> None:
    dataset_id = upload(store, PROJECT)
    datasets.claim(store, dataset_id, "w", -1)
    assert waiting.next_datasets(store) == ()
    assert datasets.sweep(store, max_attempts=3, upload_timeout_seconds=60) == (dataset_id,)
    assert waiting.next_datasets(store) == (dataset_id,)


def test_a_data_set_that_was_given_back_is_not_held_again_by_a_late_heartbeat(store: Store) -> None:
    dataset_id = upload(store, PROJECT)
    datasets.claim(store, dataset_id, "w", 60)
    datasets.give_back(store, dataset_id, 1)
    assert not datasets.renew(store, dataset_id, 1, 60)
    assert waiting.next_datasets(store) == (dataset_id,)
