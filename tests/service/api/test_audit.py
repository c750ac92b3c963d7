"""The audit log: what changed something is in it with the change, and nothing takes it out again."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from service.api import audit_trail
from service.store import audit, jobs, projects
from service.store.audit_lists import forget_old
from service.store.database import now
from service.store.models import AuditEntry
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from tests.service.api.conftest import NewApi
from tests.service.api.world import PARQUET, Api, assert_problem, spec_for


def entries(api: Api, **params: Any) -> list[dict[str, Any]]:
    answer = api.client.get("/v1/audit", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def test_a_change_says_who_did_what_from_where_and_when(any_api: Api):
    api = any_api
    before = datetime.now(UTC)
    answer = api.client.post(
        "/v1/jobs", json={"spec": spec_for(api.ready_dataset())}, headers={"Idempotency-Key": "once"}
    )
    job_id = answer.json()["id"]
    (made,) = entries(api, object_id=job_id)
    assert (made["action"], made["outcome"], made["object_ids"]) == ("POST /v1/jobs", "done", [job_id])
    assert made["request_id"] == answer.headers["x-request-id"]
    assert made["remote"] == "testclient"
    assert datetime.fromisoformat(made["time"]) >= before - timedelta(seconds=2)
    api.client.post(f"/v1/jobs/{job_id}/cancel")
    api.client.delete(f"/v1/jobs/{job_id}")
    done = [(one["action"], one["status"]) for one in entries(api, object_id=job_id)]
    assert done == [
        ("DELETE /v1/jobs/{job_id}", None),
        ("POST /v1/jobs/{job_id}/cancel", None),
        ("POST /v1/jobs", None),
    ], "also once the job is gone"


def test_an_upload_is_one_row_and_reading_and_checking_a_spec_are_none(api: Api):
    made = api.client.post("/v1/datasets", files={"file": ("a.parquet", PARQUET)}).json()
    api.client.get(f"/v1/datasets/{made['id']}")
    api.client.post("/v1/jobs/validate", json={"spec": {}})
    assert [one["object_ids"] for one in entries(api)] == [[made["id"]]]


def test_what_is_refused_is_written_down_with_its_status(new_api: NewApi):
    api = new_api(api_keys_required=True)
    admin, _ = projects.create_key(api.parts.store, PROJECT, "admin")
    reader, record = projects.create_key(api.parts.store, PROJECT, "reader", scope="read")
    api.client.headers["Authorization"] = f"Bearer {admin}"
    job_id = api.new_job()
    refused = api.client.post(f"/v1/jobs/{job_id}/cancel", headers={"Authorization": f"Bearer {reader}"})
    assert_problem(refused, 403, "insufficient_scope")
    (found,) = entries(api, key_id=record.id)
    assert (found["outcome"], found["status"], found["object_ids"]) == ("refused", 403, [job_id])
    assert api.client.post("/v1/jobs", json={"spec": {}}).status_code == 422
    (unfit,) = entries(api, outcome="refused", action="POST /v1/jobs")
    assert unfit["status"] == 422
    assert_problem(
        api.client.get("/v1/audit", headers={"Authorization": f"Bearer {reader}"}), 403, "insufficient_scope"
    )


def test_a_key_that_may_only_read_does_not_fill_the_log_with_what_it_may_not(
    new_api: NewApi, monkeypatch: pytest.MonkeyPatch
):
    api = new_api(api_keys_required=True)
    admin, _ = projects.create_key(api.parts.store, PROJECT, "admin")
    readers = [projects.create_key(api.parts.store, PROJECT, name, scope="read") for name in ("one", "two")]
    api.client.headers["Authorization"] = f"Bearer {admin}"
    job_id = api.new_job()

    def try_all(key: str) -> None:
        for verb in ("cancel", "pause", "cancel", "cancel"):
            answer = api.client.post(f"/v1/jobs/{job_id}/{verb}", headers={"Authorization": f"Bearer {key}"})
            assert_problem(answer, 403, "insufficient_scope")

    for key, _ in readers:
        try_all(key)
    routes = ["POST /v1/jobs/{job_id}/pause", "POST /v1/jobs/{job_id}/cancel"]
    for _, record in readers:
        assert [one["action"] for one in entries(api, key_id=record.id)] == routes, "each key and each route once"
    assert [api.client.post("/v1/jobs", json={"spec": {}}).status_code for _ in range(2)] == [422, 422]
    assert len(entries(api, action="POST /v1/jobs", outcome="refused")) == 2
    monkeypatch.setattr(audit_trail, "REMEMBERED", -timedelta(minutes=1))  # a minute has gone by
    try_all(readers[0][0])
    assert len(entries(api, key_id=readers[0][1].id)) == 6


def test_a_change_that_is_not_committed_is_not_in_the_log_as_done(api: Api, monkeypatch: pytest.MonkeyPatch):
    """The row stands and falls with the change."""
    enter = jobs.enter

    def break_down(*arguments: Any) -> None:
        enter(*arguments)
        raise RuntimeError("the disk burns")

    job_id = api.new_job()
    monkeypatch.setattr(jobs, "enter", break_down)
    assert api.client.post(f"/v1/jobs/{job_id}/cancel").status_code == 500
    (cancelled, _) = entries(api, object_id=job_id)
    assert (cancelled["outcome"], cancelled["status"]) == ("failed", 500)


def test_a_row_that_cannot_be_written_takes_the_change_with_it(api: Api, monkeypatch: pytest.MonkeyPatch):
    job_id = api.new_job()

    def refuse(*_: Any) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(audit, "add", refuse)
    assert api.client.post(f"/v1/jobs/{job_id}/cancel").status_code == 500
    monkeypatch.undo()
    assert api.client.get(f"/v1/jobs/{job_id}").json()["status"] == "queued"


def test_another_projects_log_is_not_shown(new_api: NewApi):
    api = new_api(api_keys_required=True)
    own, _ = projects.create_key(api.parts.store, PROJECT, "own")
    other, _ = projects.create_key(api.parts.store, projects.create_project(api.parts.store, "other").id, "other")
    api.client.post("/v1/keys", json={"name": "x"}, headers={"Authorization": f"Bearer {own}"})
    api.client.headers["Authorization"] = f"Bearer {other}"
    assert entries(api) == []


def test_the_log_is_paged_and_filtered_by_time(api: Api):
    job_ids = [api.new_job() for _ in range(3)]
    first = api.client.get("/v1/audit", params={"limit": 2, "action": "POST /v1/jobs"})
    assert first.json()["has_more"]
    rest = entries(api, limit=2, after=first.json()["last_id"], action="POST /v1/jobs")
    assert [one["object_ids"][0] for one in (*first.json()["data"], *rest)] == job_ids[::-1]
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert entries(api, since=tomorrow) == []
    assert len(entries(api, until=tomorrow, action="POST /v1/jobs")) == 3


def test_nothing_of_the_api_changes_the_log(api: Api):
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert_problem(api.client.request(method, "/v1/audit"), 405, "method_not_allowed")


def test_the_database_refuses_to_change_a_row_and_forgets_only_what_is_old(any_api: Api):
    api = any_api
    api.new_job()
    store, is_postgresql = api.parts.store, api.parts.store.engine.dialect.name == "postgresql"
    changes = [sa.update(AuditEntry).values(action="nothing"), *([sa.delete(AuditEntry)] if is_postgresql else [])]
    for change in changes:
        with pytest.raises(DBAPIError, match="only ever added to"), store.write() as session:
            session.execute(change)
    assert forget_old(store, 1) == 0
    assert len(entries(api)) == 1
    with store.write() as session:
        old = now(session) - timedelta(days=400)
        audit.add(session, audit.Deed("POST /v1/jobs", project_id=PROJECT), "done", None, old)
    assert forget_old(store, 365) == 1
    assert len(entries(api)) == 1
