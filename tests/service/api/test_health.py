"""Health: each part is named, and what is down says so without taking more down with it."""

from pathlib import Path

from sqlalchemy.exc import OperationalError

from service.store.database import Store
from service.store.objects import DirectoryStore
from tests.service.api.conftest import NewApi
from tests.service.api.world import Api, assert_problem


def test_everything_up_is_ready(deployed_api: Api):
    assert deployed_api.client.get("/healthz").json() == {"status": "ok"}
    found = deployed_api.client.get("/readyz")
    ok = {"ok": True, "error": None}
    assert found.json() == {"status": "ok", "checks": {"database": ok, "object_store": ok, "broker": ok}}


def test_broker_that_is_down_degrades_and_stops_nothing(new_api: NewApi, tmp_path: Path):
    api = new_api(broker_url=f"redis+socket://{tmp_path}/nobody.sock?virtual_host=0")
    found = api.client.get("/readyz")
    assert (found.status_code, found.json()["status"]) == (200, "degraded")
    assert found.json()["checks"]["broker"] == {"ok": False, "error": "OperationalError"}
    assert api.post_job().status_code == 201


def test_database_or_store_that_is_down_answers_503_by_name(api: Api, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(DirectoryStore, "head", lambda *_: (_ for _ in ()).throw(PermissionError("/secret")))
        problem = assert_problem(api.client.get("/readyz"), 503, "unavailable")
    assert [error["pointer"] for error in problem["errors"]] == ["object_store", "broker"]
    assert "secret" not in str(problem)

    def refuse(self: Store):
        raise OperationalError("SELECT 1", {}, Exception("no such host"))

    with monkeypatch.context() as patch:
        patch.setattr(Store, "read", refuse)
        problem = assert_problem(api.client.get("/readyz"), 503, "unavailable")
        assert problem["errors"][0]["pointer"] == "database"
        answer = api.client.get("/v1/jobs")
        assert_problem(answer, 503, "unavailable")
        assert answer.headers["retry-after"] == "2"
    assert api.client.get("/healthz").status_code == 200


def test_metrics_count_requests_by_route_and_jobs_by_state(api: Api):
    job_id = api.new_job()
    api.client.get(f"/v1/jobs/{job_id}")
    api.client.get("/v1/jobs/unknown")
    api.client.get("/nope")
    api.client.request("BREW", "/v1/jobs")
    lines = api.client.get("/metrics").text.splitlines()
    assert 'attune_jobs{state="queued"} 1.0' in lines
    assert 'attune_jobs{state="failed"} 0.0' in lines
    assert 'attune_requests_total{method="POST",route="/v1/jobs",status="201"} 1.0' in lines
    assert 'attune_requests_total{method="GET",route="/v1/jobs/{job_id}",status="200"} 1.0' in lines
    assert 'attune_requests_total{method="GET",route="/v1/jobs/{job_id}",status="404"} 1.0' in lines
    assert 'attune_requests_total{method="GET",route="unmatched",status="404"} 1.0' in lines
    assert 'attune_request_seconds_count{method="GET",route="/v1/jobs/{job_id}"} 2.0' in lines
    assert not any("BREW" in line for line in lines)
