"""Keys: asked for when the operator says so, each opening its own project and nothing of another's."""

import pytest

from alignment_core.events import WarningRaised
from service.settings import Settings
from service.store import projects
from tests.service.api.conftest import NewApi
from tests.service.api.world import Api, assert_problem, spec_for


@pytest.fixture
def locked(new_api: NewApi) -> Api:
    return new_api(api_keys_required=True)


def key_of(api: Api, name: str) -> tuple[str, dict[str, str]]:
    """A new project and the header that speaks for it."""
    project = projects.create_project(api.parts.store, name)
    key, _ = projects.create_key(api.parts.store, project.id, "test")
    return project.id, {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer nope"}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer \u00fc"}],
)
def test_without_a_valid_key_nothing_under_v1_answers(locked: Api, headers: dict[str, str]):
    sent = {name: value.encode() for name, value in headers.items()}
    for path in ("/v1/jobs", "/v1/datasets", "/v1/models", "/v1/methods", "/v1/rewards", "/v1/jobs/job_" + "0" * 26):
        answer = locked.client.get(path, headers=sent)
        assert_problem(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert_problem(locked.client.post("/v1/datasets", files={"file": b"PAR1"}, headers=sent), 401, "unauthorized")
    assert locked.client.get("/healthz").status_code == locked.client.get("/openapi.json").status_code == 200


def test_key_is_checked_before_the_body_is_read(locked: Api):
    answer = locked.client.post("/v1/jobs", json={"spec": {}})
    assert answer.status_code in (401, 422)
    assert "training" not in answer.text


def test_revoked_key_opens_nothing(locked: Api):
    project_id, headers = key_of(locked, "gone")
    assert locked.client.get("/v1/jobs", headers=headers).status_code == 200
    (key,) = projects.list_keys(locked.parts.store, project_id)
    projects.revoke_key(locked.parts.store, project_id, key.id)
    assert_problem(locked.client.get("/v1/jobs", headers=headers), 401, "unauthorized")


def test_another_projects_things_answer_404_whatever_is_asked(locked: Api):
    owner_id, owner = key_of(locked, "owner")
    _, stranger = key_of(locked, "stranger")
    body = {"spec": spec_for(locked.ready_dataset(owner_id))}
    job_id = locked.client.post("/v1/jobs", json=body, headers=owner).json()["id"]
    assert locked.client.get(f"/v1/jobs/{job_id}", headers=owner).status_code == 200
    for path in (
        "",
        "/events",
        "/metrics",
        "/checkpoints",
        "/samples",
        "/report",
        "/report.html",
        "/manifest",
        "/logs",
    ):
        assert_problem(locked.client.get(f"/v1/jobs/{job_id}{path}", headers=stranger), 404, "job_not_found")
    for verb in ("cancel", "pause", "resume"):
        assert_problem(locked.client.post(f"/v1/jobs/{job_id}/{verb}", headers=stranger), 404, "job_not_found")
    assert locked.client.get("/v1/jobs", headers=stranger).json()["data"] == []
    refused = locked.client.post("/v1/jobs", json=body, headers=stranger)
    assert assert_problem(refused, 422, "invalid_request")["errors"][0]["code"] == "dataset_not_found"


def test_another_projects_files_and_cursors_answer_as_if_they_were_not_there(locked: Api):
    owner_id, owner = key_of(locked, "owner")
    stranger_id, stranger = key_of(locked, "stranger")
    dataset_id = locked.ready_dataset(owner_id)
    jobs_of = {}
    for project_id, headers in ((owner_id, owner), (stranger_id, stranger)):
        body = {"spec": spec_for(locked.ready_dataset(project_id))}
        jobs_of[project_id] = locked.client.post("/v1/jobs", json=body, headers=headers).json()["id"]
    job_id, own_job_id = jobs_of[owner_id], jobs_of[stranger_id]
    attempt = locked.claim(job_id)
    locked.say(job_id, attempt, WarningRaised(code="odd", message="odd"))
    locked.save_checkpoint(job_id, attempt, 1)
    locked.draw_sample(job_id, attempt, 1)
    locked.evaluate(job_id, attempt, 1)
    page = f"/v1/jobs/{job_id}/report.html"
    assert locked.client.get(page, headers=owner).status_code == 200
    assert_problem(locked.client.get(page, headers=stranger), 404, "job_not_found")
    (checkpoint,) = locked.client.get(f"/v1/jobs/{job_id}/checkpoints", headers=owner).json()["data"]
    (sample,) = locked.client.get(f"/v1/jobs/{job_id}/samples", headers=owner).json()["data"]
    (event, *_) = locked.client.get(f"/v1/jobs/{job_id}/events", headers=owner).json()["data"]

    for path in ("", "/files", "/files/manifest.json", "/download", "/download?format=safetensors"):
        url = f"/v1/checkpoints/{checkpoint['id']}{path}"
        assert locked.client.get(url, headers=owner).status_code == 200
        assert_problem(locked.client.get(url, headers=stranger), 404, "checkpoint_not_found")
    for path in ("", "/report"):
        assert_problem(
            locked.client.get(f"/v1/datasets/{dataset_id}{path}", headers=stranger), 404, "dataset_not_found"
        )
    image = f"/v1/jobs/{job_id}/samples/{sample['id']}.png"
    assert locked.client.get(image, headers=owner).status_code == 200
    assert_problem(locked.client.get(image, headers=stranger), 404, "job_not_found")
    through_own = f"/v1/jobs/{own_job_id}/samples/{sample['id']}.png"
    assert_problem(locked.client.get(through_own, headers=stranger), 404, "sample_not_found")
    events_url = f"/v1/jobs/{own_job_id}/events"
    for found in (
        locked.client.get(events_url, headers={**stranger, "Last-Event-ID": event["id"]}),
        locked.client.get(events_url, headers=stranger, params={"after": event["id"]}),
    ):
        assert assert_problem(found, 422, "invalid_request")["errors"][0]["code"] == "event_not_found"
    listed = locked.client.get("/v1/datasets", headers=stranger).json()["data"]
    assert dataset_id not in {one["id"] for one in listed}


def test_idempotency_keys_of_two_projects_are_apart(locked: Api):
    (first_id, first), (second_id, second) = key_of(locked, "first"), key_of(locked, "second")
    ids = set()
    for project_id, headers in ((first_id, first), (second_id, second)):
        body = {"spec": spec_for(locked.ready_dataset(project_id))}
        answer = locked.client.post("/v1/jobs", json=body, headers={**headers, "Idempotency-Key": "same"})
        assert answer.status_code == 201
        ids.add(answer.json()["id"])
    assert len(ids) == 2


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:9999", "http://localhost.evil.example"]
)
def test_a_server_without_keys_takes_no_orders_of_a_foreign_origin(api: Api, origin: str):
    """Some browsers and old ones say nothing in `Sec-Fetch-Site`."""
    job_id, headers = api.new_job(), {"Origin": origin}
    assert_problem(api.client.post(f"/v1/jobs/{job_id}/cancel", headers=headers), 403, "cross_site_request")
    upload = api.client.post("/v1/datasets", files={"file": b"PAR1"}, headers=headers)
    assert_problem(upload, 403, "cross_site_request")
    assert api.client.get(f"/v1/jobs/{job_id}").json()["status"] == "queued"
    own = {"Origin": "http://localhost"}
    assert api.client.post(f"/v1/jobs/{job_id}/cancel", headers=own).status_code == 202


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", "a b", ""])
def test_a_server_without_keys_answers_to_its_own_names_alone(api: Api, host: str):
    """Else a page whose name is made to lead here reads everything (DNS rebinding)."""
    problem = assert_problem(api.client.get("/v1/jobs", headers={"Host": host}), 421, "host_not_allowed")
    assert "ATTUNE_ALLOWED_HOSTS" in problem["detail"]
    assert api.client.get("/healthz", headers={"Host": host}).status_code == 200


def test_names_that_a_server_has_are_answered(new_api: NewApi):
    api = new_api(public_url="https://attune.example/", allowed_hosts="gpu-box, other.example")
    hosts = ["localhost:8000", "127.0.0.1:1", "[::1]:8000", "192.168.1.5", "attune.example", "GPU-box:8000"]
    for host in hosts:
        assert api.client.get("/v1/jobs", headers={"Host": host}).status_code == 200, host


def test_a_server_with_keys_is_called_by_any_name(locked: Api):
    _, headers = key_of(locked, "mine")
    asked = {**headers, "Host": "any.example", "Origin": "https://elsewhere.example"}
    assert locked.client.get("/v1/jobs", headers=asked).status_code == 200


def test_pages_that_the_operator_names_may_call_from_a_browser(new_api: NewApi):
    page = "https://app.example.org"
    api = new_api(cors_origins=f"{page},https://two.example")
    job_id = api.new_job()
    asked = {
        "Origin": page,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "idempotency-key",
    }
    allowed = api.client.options("/v1/jobs", headers=asked)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, page)
    order = api.client.post(f"/v1/jobs/{job_id}/cancel", headers={"Origin": page, "Sec-Fetch-Site": "cross-site"})
    assert (order.status_code, order.headers["access-control-allow-origin"]) == (202, page)
    other = api.client.get("/v1/jobs", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers
    for wrong in ("*", "app.example.org", "https://app.example.org/path"):
        with pytest.raises(ValueError, match="origins such as"):
            Settings(cors_origins=wrong)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_server_without_keys_takes_no_orders_from_other_pages(api: Api, site: str):
    body = {"spec": spec_for(api.ready_dataset())}
    answer = api.client.post("/v1/jobs", json=body, headers={"Sec-Fetch-Site": site})
    assert_problem(answer, 403, "cross_site_request")
    assert api.client.get("/v1/jobs", headers={"Sec-Fetch-Site": site}).json()["data"] == []
    for own in ({"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {}):
        assert api.client.post("/v1/jobs", json=body, headers=own).status_code == 201
