"""What jobs took, over HTTP."""

from typing import Any

import pytest

from tests.service.api.world import Api, spec_for


def test_a_job_shows_what_it_took_beside_its_estimate(api: Api) -> None:
    job_id = api.new_job()
    assert api.client.get(f"/v1/jobs/{job_id}").json()["usage"] is None
    api.run(job_id)
    job = api.client.get(f"/v1/jobs/{job_id}").json()
    took = job["usage"]
    assert took["num_attempts"] == 1
    assert {"queued", "starting", "training"} <= took["seconds"].keys()
    assert took["stored_bytes"] > 0
    assert took["estimated_seconds"] == job["estimate"]["duration"]["total"]["expected"]
    assert took["over_estimate"] is not None


def test_a_projects_attempts_are_summed_up(api: Api) -> None:
    assert api.client.get("/v1/usage").json()["num_attempts"] == 0
    api.run(api.new_job())
    api.run(api.new_job())
    found = api.client.get("/v1/usage", params={"until": "2100-01-01T00:00:00"}).json()
    assert (found["num_attempts"], found["since"], found["until"]) == (2, None, "2100-01-01T00:00:00Z")
    assert found["process_seconds"] >= 0
    assert api.client.get("/v1/usage", params={"since": "2100-01-01T00:00:00Z"}).json()["num_attempts"] == 0
    assert api.client.get("/v1/usage", params={"since": "yesterday"}).status_code == 422


@pytest.mark.parametrize("path", ["/v1/usage", "/v1/audit"])
def test_a_time_that_no_database_knows_is_refused(api: Api, path: str) -> None:
    for parameter in ("since", "until"):
        for time in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
            answer = api.client.get(path, params={parameter: time})
            assert answer.status_code == 422
            assert "in UTC it lies before the year 1" in answer.json()["errors"][0]["message"]
        assert api.client.get(path, params={parameter: "2026-11-20T10:00:00+02:00"}).status_code == 200


def test_bounds_of_an_estimate_come_from_what_became_of_those_before(api: Api) -> None:
    spec = spec_for(api.ready_dataset())
    found: list[dict[str, Any]] = []
    for _ in range(10):
        answer = api.client.post("/v1/jobs/validate", json={"spec": spec})
        found.append(answer.json()["estimate"]["calibration"])
        api.run(api.client.post("/v1/jobs", json={"spec": spec}).json()["id"])
    assert [one["num_jobs"] for one in found] == list(range(10))
    assert [one["low"] for one in found[:9]] == [None] * 9
    assert 0 < found[9]["low"] < found[9]["high"]
    other = {**spec, "adapter": {"type": "full"}}
    assert api.client.post("/v1/jobs/validate", json={"spec": other}).json()["estimate"]["calibration"]["num_jobs"] == 0
