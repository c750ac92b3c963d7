from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from alignment_core.spec import JobSpec
from service.store import jobs, leases, projects
from service.store.database import Store
from service.store.ids import new_id
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records.base import JobError
from service.store.records.jobs import JobRecord
from service.store.states import InvalidTransition


def test_a_new_job_is_queued_and_holds_the_resolved_spec(store: Store, spec: JobSpec) -> None:
    job = jobs.create(store, project_id=PROJECT, spec=spec, name="first", metadata={"team": "a"})
    assert (job.state, job.attempt, job.is_terminal) == ("queued", 0, False)
    assert JobSpec.model_validate(job.spec) == spec.resolved()
    assert job.spec_sha256 == spec.sha256()
    assert (job.method, job.model) == ("diffusion_dpo", "shapes")
    assert (job.progress.step, job.progress.total, job.progress.percent) == (0, 40, 0.0)
    assert job.created_at.tzinfo is UTC
    assert abs(datetime.now(UTC) - job.created_at) < timedelta(seconds=60)
    assert jobs.get(store, PROJECT, job.id) == job


def test_another_projects_job_is_invisible(store: Store, job: JobRecord) -> None:
    other = projects.create_project(store, "other").id
    assert jobs.get(store, other, job.id) is None
    assert jobs.list_jobs(store, other).data == ()
    for request in (jobs.request_cancel, jobs.request_pause, jobs.resume):
        assert request(store, other, job.id) is None
    assert jobs.get(store, PROJECT, job.id) == job


def test_creating_under_the_same_id_twice_makes_one_job(store: Store, spec: JobSpec) -> None:
    job_id = new_id("job")
    first = jobs.create(store, project_id=PROJECT, spec=spec, name="one", job_id=job_id)
    second = jobs.create(store, project_id=PROJECT, spec=spec, name="two", job_id=job_id)
    assert first == second
    assert len(jobs.list_jobs(store, PROJECT).data) == 1


@pytest.mark.parametrize(
    ("name", "metadata", "message"),
    [
        ("a\0b", {}, "NUL"),
        (None, {"a": "b\0"}, "NUL"),
        (None, {"a\0": "b"}, "NUL"),
        ("n" * 201, {}, "201 characters"),
    ],
)
def test_texts_that_a_database_cannot_hold_are_refused(store, spec, name, metadata, message) -> None:
    with pytest.raises(ValueError, match=message):
        jobs.create(store, project_id=PROJECT, spec=spec, name=name, metadata=metadata)


def test_lists_are_newest_first_and_paged_without_gaps(store: Store, new_job: Callable[[], JobRecord]) -> None:
    made = [new_job().id for _ in range(7)]
    seen: list[str] = []
    has_more = True
    while has_more:
        page = jobs.list_jobs(store, PROJECT, after_id=seen[-1] if seen else None, limit=3)
        seen += [job.id for job in page.data]
        has_more = page.has_more
    assert seen == made[::-1]


def test_every_filter_must_hold(store: Store, spec: JobSpec) -> None:
    red = jobs.create(store, project_id=PROJECT, spec=spec, metadata={"team": "red", 'od"d.key': "x"})
    blue = jobs.create(store, project_id=PROJECT, spec=spec, metadata={"team": "blue", "sprint.no": "7"})
    jobs.request_cancel(store, PROJECT, blue.id)

    def found(**filters) -> set[str]:
        return {job.id for job in jobs.list_jobs(store, PROJECT, **filters).data}

    assert found(metadata={"team": "red"}) == {red.id}
    assert found(metadata={"sprint.no": "7"}) == {blue.id}
    assert found(metadata={"team": "blue", "sprint.no": "8"}) == set()
    assert found(states=["queued", "running"]) == {red.id}
    assert found(states=["cancelled"], metadata={"team": "blue"}) == {blue.id}
    assert found(states=[]) == set()
    assert found(method="diffusion_dpo", model="shapes") == {red.id, blue.id}
    assert found(method="dpok") == found(model="other") == set()


@pytest.mark.parametrize("text", ['"', "\\", "\0", "$", "%", "'; DROP TABLE jobs; --", "$.x[0]"])
def test_strange_filters_find_nothing_and_break_nothing(store: Store, job: JobRecord, text: str) -> None:
    assert jobs.list_jobs(store, PROJECT, metadata={text: "x"}).data == ()
    assert jobs.list_jobs(store, PROJECT, metadata={"x": text}).data == ()
    assert jobs.list_jobs(store, PROJECT, model=text).data == ()
    assert jobs.list_jobs(store, PROJECT, method=text).data == ()
    assert jobs.get(store, PROJECT, job.id) == job


@pytest.mark.parametrize(
    ("spec_model", "label"),
    [
        ({"type": "hub", "repo_id": "owner/name", "revision": "a" * 40}, "owner/name"),
        ({"type": "local", "path": "/models/mine"}, "/models/mine"),
    ],
)
def test_models_are_found_by_repository_or_path(store: Store, spec: JobSpec, spec_model, label) -> None:
    other = JobSpec.model_validate({**spec.model_dump(), "model": spec_model})
    job = jobs.create(store, project_id=PROJECT, spec=other)
    assert [found.id for found in jobs.list_jobs(store, PROJECT, model=label).data] == [job.id]


def test_a_waiting_job_is_cancelled_at_once(store: Store, job: JobRecord) -> None:
    cancelled = jobs.request_cancel(store, PROJECT, job.id)
    assert cancelled is not None
    assert (cancelled.state, cancelled.cancel_requested, cancelled.is_terminal) == ("cancelled", True, True)
    assert cancelled.finished_at is not None
    assert leases.claim(store, job.id, "w", 60) is None


def test_a_running_job_is_asked_to_stop(store: Store, job: JobRecord) -> None:
    leases.claim(store, job.id, "w", 60)
    asked = jobs.request_cancel(store, PROJECT, job.id)
    assert asked is not None
    assert (asked.state, asked.is_terminal) == ("cancelling", False)


def test_asking_twice_is_no_error(store: Store, job: JobRecord) -> None:
    assert jobs.request_cancel(store, PROJECT, job.id) == jobs.request_cancel(store, PROJECT, job.id)


def test_pause_and_resume_keep_the_job_alive(store: Store, job: JobRecord) -> None:
    paused = jobs.request_pause(store, PROJECT, job.id)
    assert paused is not None
    assert paused.state == "paused"
    assert leases.claim(store, job.id, "w", 60) is None
    resumed = jobs.resume(store, PROJECT, job.id)
    assert resumed is not None
    assert resumed.state == "queued"
    assert leases.claim(store, job.id, "w", 60) is not None


def failed(store: Store, job: JobRecord, *, retryable: bool) -> JobRecord:
    leases.claim(store, job.id, "w", -1)
    leases.requeue_lost(store, 3)
    leases.claim(store, job.id, "w", 60)
    error = JobError(code="trainer_killed", message="killed", category="system", retryable=retryable)
    return leases.finish(store, job.id, 2, "failed", error)


def test_a_failure_that_may_pass_is_resumed_with_all_its_attempts(store: Store, job: JobRecord) -> None:
    assert failed(store, job, retryable=True).is_terminal
    resumed = jobs.resume(store, PROJECT, job.id)
    assert resumed is not None
    assert (resumed.state, resumed.error, resumed.finished_at, resumed.is_terminal) == ("queued", None, None, False)
    for _ in range(2):
        leases.claim(store, job.id, "w", -1)
        assert leases.requeue_lost(store, 3).requeued == (job.id,), "the loss before the failure counts no more"


def test_a_failure_that_would_come_again_is_not_resumed(store: Store, job: JobRecord) -> None:
    ended = failed(store, job, retryable=False)
    with pytest.raises(InvalidTransition, match="the same would happen again"):
        jobs.resume(store, PROJECT, job.id)
    assert jobs.get(store, PROJECT, job.id) == ended


def test_a_job_that_ended_refuses_every_verb_but_the_one_that_ended_it(store: Store, job: JobRecord) -> None:
    jobs.request_cancel(store, PROJECT, job.id)
    for request in (jobs.request_pause, jobs.resume):
        with pytest.raises(InvalidTransition):
            request(store, PROJECT, job.id)
