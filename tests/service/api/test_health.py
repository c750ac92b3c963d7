"""Health: each part is named, and what is down says so without taking more down with it."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from httpx2 import Response
from pydantic import SecretStr
from sqlalchemy.exc import OperationalError

from service.store.database import Store
from service.store.objects import DirectoryStore
from service.store.probe import StoreProbe
from tests.service.api.conftest import NewApi
from tests.service.api.pieces import announce, finish, offset_of, send, send_all
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


def test_store_that_is_missing_answers_503_by_name_and_reason(new_api: NewApi, tmp_path: Path):
    api = new_api()
    assert api.client.get("/readyz").json()["checks"]["object_store"] == {"ok": True, "error": None}
    shutil.rmtree(api.parts.settings.objects_dir)
    problem = assert_problem(api.client.get("/readyz"), 503, "unavailable")
    assert (problem["errors"][0]["pointer"], problem["errors"][0]["message"]) == ("object_store", "missing")
    assert str(tmp_path) not in str(problem)


def test_bucket_that_does_not_exist_is_not_ready_and_no_upload_is_asked_for_again(
    s3_settings: dict[str, object], new_api: NewApi
):
    api = new_api(**{**s3_settings, "s3_bucket": "nobody-made-this"})
    problem = assert_problem(api.client.get("/readyz"), 503, "unavailable")
    assert problem["errors"][0]["message"] == "missing"
    answer = upload(api, 1000)
    problem = assert_problem(answer, 503, "object_store_missing")
    assert "does not exist" in problem["detail"]
    assert "try again" not in problem["detail"]
    assert "retry-after" not in answer.headers
    error = api.client.get("/v1/datasets").json()["data"][0]["error"]
    assert error["message"] == "the file was not stored: the object store does not exist under its configured name"


def test_keys_that_the_store_refuses_are_denied(s3_settings: dict[str, object], new_api: NewApi):
    api = new_api(**{**s3_settings, "s3_secret_access_key": SecretStr("wrong")})
    problem = assert_problem(api.client.get("/readyz"), 503, "unavailable")
    assert problem["errors"][0]["message"] == "denied"
    assert_problem(upload(api, 1000), 503, "object_store_denied")


def test_ready_asks_for_reading_and_writing_alone(deployed_api: Api, monkeypatch: pytest.MonkeyPatch):
    asked = []
    client = deployed_api.parts.objects._objects._client  # pyright: ignore[reportAttributeAccessIssue]
    client.meta.events.register("before-call.s3", lambda model, **_: asked.append(model.name))
    for _ in range(3):
        assert deployed_api.client.get("/readyz").status_code == 200
    assert asked == ["PutObject", "GetObject", "GetObject", "GetObject"]


def upload(api: Api, size_bytes: int) -> Response:
    return api.client.post("/v1/datasets", files={"file": ("p.parquet", b"PAR1" + bytes(size_bytes))})


def test_full_store_degrades_and_upload_is_507(api: Api, small_disk: Path):
    objects = DirectoryStore(small_disk)
    parts = dataclasses.replace(api.parts, objects=objects, objects_probe=StoreProbe(objects))
    api.client.app.state.parts = parts  # pyright: ignore[reportAttributeAccessIssue, reportFunctionMemberAccess]
    answer = upload(api, 2 * 2**20)
    problem = assert_problem(answer, 507, "object_store_full")
    assert "retry-after" not in answer.headers
    assert problem["detail"].startswith("the object store is full")
    error = api.client.get("/v1/datasets").json()["data"][0]["error"]
    assert error["hint"] == "Upload it again when the operator has mended it."
    rest = small_disk / "rest"
    with pytest.raises(OSError, match="No space"):
        rest.write_bytes(bytes(2 * 2**20))
    ready = api.client.get("/readyz").json()
    assert (ready["status"], ready["checks"]["object_store"]) == ("degraded", {"ok": False, "error": "full"})
    rest.unlink()
    assert api.client.get("/readyz").json()["checks"]["object_store"]["ok"]
    assert upload(api, 1000).status_code == 201


def test_full_disk_under_the_uploads_folder_is_507(new_api: NewApi, small_disk: Path):
    api = new_api()
    (api.parts.settings.data_dir / "uploads").symlink_to(small_disk)
    problem = assert_problem(upload(api, 2 * 2**20), 507, "upload_folder_full")
    assert str(small_disk) not in str(problem)


@pytest.mark.parametrize("piece", [2 * 2**20, 700_000])
def test_full_disk_under_an_upload_in_pieces_is_507_and_loses_nothing_that_had_come(
    new_api: NewApi, small_disk: Path, piece: int
):
    """As a piece comes, or as the pieces are put together."""
    api, content = new_api(), b"PAR1" + bytes(2 * 2**20 - 4)
    (api.parts.settings.data_dir / "uploads").symlink_to(small_disk)
    upload_id = announce(api, len(content))
    if piece < len(content):
        send_all(api, upload_id, content, piece)
        assert_problem(finish(api, upload_id), 507, "upload_folder_full")
        assert offset_of(api, upload_id) == len(content)
    else:
        assert_problem(send(api, upload_id, 0, content), 507, "upload_folder_full")
    assert api.client.get(f"/v1/uploads/{upload_id}").json()["status"] == "receiving"
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_was_full_before_a_few_bytes_came_is_507_too(new_api: NewApi, small_disk: Path):
    api = new_api()
    (api.parts.settings.data_dir / "uploads").symlink_to(small_disk)
    upload_id = announce(api, 50)
    (small_disk / "rest").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    assert_problem(send(api, upload_id, 0, b"PAR1" + bytes(46)), 507, "upload_folder_full")
    assert_problem(upload(api, 46), 507, "upload_folder_full")


def test_database_that_is_down_answers_503_by_name(api: Api, monkeypatch):
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
    assert 'attune_webhook_deliveries{state="pending"} 0.0' in lines
    assert 'attune_requests_total{method="POST",route="/v1/jobs",status="201"} 1.0' in lines
    assert 'attune_requests_total{method="GET",route="/v1/jobs/{job_id}",status="200"} 1.0' in lines
    assert 'attune_requests_total{method="GET",route="/v1/jobs/{job_id}",status="404"} 1.0' in lines
    assert 'attune_requests_total{method="GET",route="unmatched",status="404"} 1.0' in lines
    assert 'attune_request_seconds_count{method="GET",route="/v1/jobs/{job_id}"} 2.0' in lines
    assert not any("BREW" in line for line in lines)
