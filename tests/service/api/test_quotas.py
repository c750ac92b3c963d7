"""Quotas: the last one is had once, whoever asks at once, and a refusal says which, how much and until when."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from httpx2 import Response

from service.store import datasets, jobs, leases, quotas
from service.store.database import now
from service.store.limits import NO_LIMIT, Limits
from service.store.models import Job, ProofShard
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records.base import JobError
from tests.service.api.conftest import NewApi
from tests.service.api.world import PARQUET, Api, spec_for


@pytest.fixture(autouse=True)
def not_at_the_end_of_an_hour() -> None:
    """What is counted by the hour of the clock begins in one and ends in it."""
    left = 3600 - time.time() % 3600
    if left < 15:
        time.sleep(left)


def assert_used_up(answer: Response, status: int, name: str, used: float, limit: float) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert problem["code"] == "quota_exceeded"
    assert {name: problem["quota"][name] for name in ("name", "used", "limit")} == {
        "name": name,
        "used": used,
        "limit": limit,
    }
    return problem


@pytest.fixture(params=["embedded", "deployed"])
def limited(request: pytest.FixtureRequest, new_api: NewApi) -> Callable[..., Api]:
    """A server with these settings, on SQLite and on PostgreSQL."""

    def start(**settings: object) -> Api:
        if request.param == "deployed":
            postgres = request.getfixturevalue("postgres_server")
            settings["database_url"] = postgres.url(postgres.make_database())
        return new_api(**settings)

    return start


@pytest.mark.parametrize("quota", ["quota_jobs", "quota_submits_per_hour"])
def test_of_many_that_submit_at_once_exactly_as_many_get_in_as_there_is_room(limited: Callable[..., Api], quota: str):
    api = limited(**{quota: 3})
    body = {"spec": spec_for(api.ready_dataset())}
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: api.client.post("/v1/jobs", json=body), range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [429] * 7
    assert len(api.client.get("/v1/jobs").json()["data"]) == 3


def test_a_job_that_ends_makes_room_for_another(limited: Callable[..., Api]):
    api = limited(quota_jobs=1)
    job_id = api.new_job()
    problem = assert_used_up(api.post_job(), 429, "jobs", 1, 1)
    assert problem["quota"]["resets_at"] is None
    assert "1 of 1 jobs that have not ended" in problem["detail"]
    api.client.post(f"/v1/jobs/{job_id}/cancel")
    assert api.post_job().status_code == 201


def test_a_job_that_failed_needs_room_to_be_resumed(limited: Callable[..., Api]):
    api = limited(quota_jobs=1)
    failed = api.new_job()
    error = JobError(category="system", code="object_store_full", message="no room", retryable=True)
    leases.finish(api.parts.store, failed, api.claim(failed), "failed", error)
    other = api.new_job()
    assert_used_up(api.client.post(f"/v1/jobs/{failed}/resume"), 429, "jobs", 1, 1)
    api.client.post(f"/v1/jobs/{other}/cancel")
    assert api.client.post(f"/v1/jobs/{failed}/resume").status_code == 202
    assert api.client.post(f"/v1/jobs/{failed}/pause").json()["status"] == "paused"
    assert api.client.post(f"/v1/jobs/{failed}/resume").status_code == 202, "one that is paused has its room"


def test_submits_are_told_in_headers_and_a_deletion_gives_none_back(limited: Callable[..., Api]):
    api = limited(quota_submits_per_hour=2)
    first = api.post_job()
    assert first.headers["ratelimit-policy"] == '"submits";q=2;w=3600'
    name, left, restored = first.headers["ratelimit"].split(";")
    assert (name, left) == ('"submits"', "r=1")
    assert 0 < int(restored.removeprefix("t=")) <= 3600
    job_id = first.json()["id"]
    api.client.post(f"/v1/jobs/{job_id}/cancel")
    assert api.client.delete(f"/v1/jobs/{job_id}").status_code == 200
    assert api.post_job().headers["ratelimit"].startswith('"submits";r=0;t=')
    refused = api.post_job()
    problem = assert_used_up(refused, 429, "submits", 2, 2)
    assert datetime.fromisoformat(problem["quota"]["resets_at"]) > datetime.now(UTC)
    assert 0 < int(refused.headers["retry-after"]) <= 3600
    assert refused.headers["ratelimit"].startswith('"submits";r=0;t=')


def test_sweeps_and_evaluations_tell_what_is_left_too(limited: Callable[..., Api]):
    api = limited(quota_submits_per_hour=3)
    search = {"type": "list", "points": [{"seed": 1}, {"seed": 2}]}
    sweep = api.client.post("/v1/sweeps", json={"spec": spec_for(api.ready_dataset()), "search": search})
    assert sweep.headers["ratelimit"].startswith('"submits";r=2;t='), "one is queued, the other waits"
    pair = [{"name": name, "model": "shapes"} for name in "ab"]
    spec = {"contenders": pair, "prompts": ["a"], "rewards": ["jpeg_size"]}
    evaluation = api.client.post("/v1/evaluations", json={"spec": spec})
    assert evaluation.headers["ratelimit"].startswith('"submits";r=1;t=')
    assert evaluation.headers["ratelimit-policy"] == '"submits";q=3;w=3600'


def test_the_same_request_again_is_no_second_submit(limited: Callable[..., Api]):
    api = limited(quota_submits_per_hour=1)
    body = {"spec": spec_for(api.ready_dataset())}
    answers = [api.client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "once"}) for _ in "ab"]
    assert [answer.status_code for answer in answers] == [201, 201]


def test_a_server_without_quotas_says_nothing_of_them(api: Api):
    answer = api.post_job()
    assert answer.status_code == 201
    assert "ratelimit" not in answer.headers
    listed = {one["id"]: one for one in api.client.get("/v1/quotas").json()["data"]}
    assert (listed["jobs"]["limit"], listed["jobs"]["used"]) == (None, 1)


def test_uploads_at_once_never_store_more_than_the_quota(limited: Callable[..., Api]):
    size = len(PARQUET)
    api = limited(quota_bytes=2 * size)

    def upload(_: int) -> Response:
        return api.client.post("/v1/datasets", files={"file": ("a.parquet", PARQUET)})

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(upload, range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, 201, 403, 403, 403, 403]
    problem = assert_used_up(upload(0), 403, "bytes", 2 * size, 2 * size)
    assert problem["quota"]["resets_at"] is None
    first = api.client.get("/v1/datasets").json()["data"][0]["id"]
    api.client.delete(f"/v1/datasets/{first}")
    assert upload(0).status_code == 201
    assert len(list(api.parts.objects.list("projects/"))) == 2


def test_everything_that_is_stored_counts(api: Api):
    job_id = api.new_job()
    api.run(job_id)
    dataset_id = api.client.get("/v1/datasets").json()["data"][0]["id"]
    datasets.encoded(api.parts.store, dataset_id, 1000)
    with api.parts.store.write() as session:
        shard = ProofShard(job_id=job_id, path="a", project_id=PROJECT, size_bytes=234, sha256="0" * 64, object_key="a")
        session.add(shard)
    stored = sum(info.size_bytes for info in api.parts.objects.list("projects/"))
    used = {one["id"]: one["used"] for one in api.client.get("/v1/quotas").json()["data"]}
    assert used["bytes"] == stored + 1234


def test_gpu_hours_are_those_of_all_processes_of_all_attempts(
    limited: Callable[..., Api], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(quotas, "_month", lambda _: datetime(2020, 1, 1, tzinfo=UTC))  # that no month ends meanwhile
    monkeypatch.setattr(quotas, "next_month", lambda _: datetime(2100, 1, 1, tzinfo=UTC))
    api = limited(quota_gpu_hours_per_month=3)
    job_id = api.new_job()
    for hours, end in ((0.5, leases.give_back), (0.25, leases.give_back)):
        attempt = api.claim(job_id)
        _began(api, job_id, hours, processes=2)
        end(api.parts.store, job_id, attempt)
    assert _gpu_hours(api) == pytest.approx(1.5, abs=0.01)
    api.claim(job_id)
    _began(api, job_id, 1.0, processes=2)
    assert _gpu_hours(api) == pytest.approx(3.5, abs=0.01), "one that runs counts so far"
    answer = api.post_job()
    assert answer.status_code == 403
    assert answer.json()["quota"]["name"] == "gpu_hours"
    paused = jobs.get(api.parts.store, PROJECT, job_id)
    assert paused is not None
    leases.finish(api.parts.store, job_id, paused.attempt, "succeeded")
    assert _gpu_hours(api) == pytest.approx(3.5, abs=0.01)


def _began(api: Api, job_id: str, hours_ago: float, processes: int) -> None:
    with api.parts.store.write() as session:
        began = now(session) - timedelta(hours=hours_ago)
        session.execute(sa.update(Job).where(Job.id == job_id).values(attempt_started_at=began, processes=processes))


def _gpu_hours(api: Api) -> float:
    found = {one["id"]: one["used"] for one in api.client.get("/v1/quotas").json()["data"]}
    return found["gpu_hours"] if found["gpu_hours"] else 0.0


def test_an_attempt_over_the_end_of_a_month_counts_in_both():
    start = datetime(2026, 1, 31, 23, tzinfo=UTC)
    found = list(quotas.by_month(start, datetime(2026, 3, 1, 1, tzinfo=UTC)))
    assert [(month.month, seconds / 3600) for month, seconds in found] == [(1, 1), (2, 28 * 24), (3, 1)]
    assert quotas.next_month(datetime(2026, 12, 5, tzinfo=UTC)) == datetime(2027, 1, 1, tzinfo=UTC)


def test_a_projects_own_limits_come_before_the_servers(new_api: NewApi):
    api = new_api(quota_jobs=0)
    assert api.post_job().status_code == 429
    quotas.set_limits(api.parts.store, PROJECT, {"jobs": 1})
    assert api.post_job().status_code == 201
    assert api.post_job().status_code == 429
    quotas.set_limits(api.parts.store, PROJECT, {"jobs": NO_LIMIT})
    assert api.post_job().status_code == 201
    quotas.set_limits(api.parts.store, PROJECT, {"jobs": None})
    assert api.post_job().status_code == 429
    assert Limits(jobs=5).replaced_by({"jobs": None, "submits": 2, "gpu_hours": NO_LIMIT, "bytes": None}) == Limits(
        5, 2
    )
