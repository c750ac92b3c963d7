"""Jobs over HTTP: what is taken, what is refused and why, and how a job is followed."""

import threading
import time
from typing import Any

import pytest
import sqlalchemy as sa
from httpx2 import Response

from service.store import datasets, idempotency, jobs, leases, projects
from service.store.models import IdempotencyKey
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.base import JobError
from tests.service.api.conftest import NewApi
from tests.service.api.world import Api, assert_problem, spec_for, step_completed


def test_created_job_is_queued_with_every_default_of_its_spec_written_out(any_api: Api):
    dataset_id = any_api.ready_dataset()
    body = {"spec": spec_for(dataset_id), "name": "more colour", "metadata": {"team": "design"}}
    answer = any_api.client.post("/v1/jobs", json=body)
    job = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["status"] == "queued"
    assert not job["is_terminal"]
    assert (job["name"], job["metadata"], job["attempt"]) == ("more colour", {"team": "design"}, 0)
    assert job["spec"]["training"]["learning_rate"] == 1e-5
    assert job["spec"]["adapter"]["alpha"] == 8.0
    assert job["progress"] == {"step": 0, "total": 4, "percent": 0.0, "eta_seconds": None}
    assert job["created_at"].endswith("Z")
    assert any_api.client.get(answer.headers["location"]).json() == job


def test_job_shows_progress_attempt_and_phase_of_the_worker(api: Api):
    job_id = api.new_job()
    attempt = api.claim(job_id)
    api.say(job_id, attempt, step_completed(3))
    job = api.client.get(f"/v1/jobs/{job_id}").json()
    assert job["status"] == "starting"
    assert job["attempt"] == 1
    assert job["progress"] == {"step": 3, "total": 4, "percent": 75.0, "eta_seconds": 1.0}


def test_failed_job_says_why_whose_fault_it_is_and_what_to_do(api: Api):
    job_id = api.new_job()
    error = JobError(code="non_finite_loss", message="the loss is NaN", category="user", hint="lower the learning rate")
    leases.finish(api.parts.store, job_id, api.claim(job_id), "failed", error)
    job = api.client.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["is_terminal"]) == ("failed", True)
    assert job["error"] == {
        "code": "non_finite_loss",
        "message": "the loss is NaN",
        "category": "user",
        "retryable": False,
        "hint": "lower the learning rate",
    }


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"method": {"type": "diffusion_dpo", "beta": -1}}, "/spec/method/beta", "greater_than"),
        ({"method": {"type": "diffusion_dpo"}}, "/spec/method/dataset", "missing"),
        ({"trainig": {}}, "/spec/trainig", "extra_forbidden"),
        ({"model": {"type": "catalog", "name": "Bad Name"}}, "/spec/model/name", "string_pattern_mismatch"),
        ({"model": {"type": "catalog", "name": "shapes", "path": "/"}}, "/spec/model/path", "extra_forbidden"),
        ({"model": {"type": "url"}}, "/spec/model/type", "union_tag_invalid"),
        ({"evaluation": {"rewards": [{"type": "jpeg_size", "quality": 0}]}}, "/spec/evaluation/rewards/0/quality", "greater_than_equal"),
        ({"training": {"steps": 2, "warmup_steps": 3}}, "/spec/training/warmup_steps", "value_error"),
    ],
)  # fmt: skip
def test_mistake_in_a_spec_is_named_by_its_json_pointer(api: Api, change: dict[str, Any], pointer: str, code: str):
    spec = {**spec_for("ds_" + "0" * 26), **change}
    problem = assert_problem(api.client.post("/v1/jobs", json={"spec": spec}), 422, "invalid_request")
    assert (pointer, code) in [(error["pointer"], error["code"]) for error in problem["errors"]]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": "x" * 201}, "/name"),
        ({"name": "a\0b"}, "/name"),
        ({"metadata": {"a b": "c"}}, "/metadata/a b"),
        ({"metadata": {"a": "\0"}}, "/metadata/a"),
        ({"metadata": {f"k{number}": "v" for number in range(17)}}, "/metadata"),
        ({"priority": 1}, "/priority"),
    ],
)
def test_name_and_metadata_have_limits(api: Api, body: dict[str, Any], pointer: str):
    problem = assert_problem(api.post_job(**body), 422, "invalid_request")
    assert problem["errors"][0]["pointer"].startswith(pointer)


def test_unknown_catalog_names_are_refused_with_what_there_is(api: Api):
    spec = spec_for(api.ready_dataset()) | {"model": {"type": "catalog", "name": "sdxl"}}
    (error,) = assert_problem(api.client.post("/v1/jobs", json={"spec": spec}), 422, "invalid_request")["errors"]
    assert (error["pointer"], error["code"]) == ("/spec/model/name", "unknown_model")
    assert "shapes" in error["message"]


def test_local_paths_are_refused_unless_the_operator_allows_them(api: Api, new_api: NewApi):
    spec: dict[str, Any] = spec_for("ds_" + "0" * 26) | {"model": {"type": "local", "path": "/etc"}}
    spec["method"]["dataset"] = {"type": "local", "path": "/etc/passwd"}
    problem = assert_problem(api.client.post("/v1/jobs", json={"spec": spec}), 422, "invalid_request")
    assert [error["pointer"] for error in problem["errors"]] == ["/spec/model/path", "/spec/method/dataset/path"]
    assert new_api(allow_local_paths=True).client.post("/v1/jobs", json={"spec": spec}).status_code == 201


def test_remote_rewards_are_refused_unless_the_operator_named_their_host(api: Api, new_api: NewApi):
    spec = spec_for("ds_" + "0" * 26)
    spec["evaluation"] = {"rewards": [{"type": "remote", "url": "https://rewards.example.org/"}]}
    body = {"spec": spec}
    found = api.client.post("/v1/jobs/validate", json=body).json()["errors"]
    assert [error["code"] for error in found] == ["remote_host_refused", "dataset_not_found"]
    assert found[0]["pointer"] == "/spec/evaluation/rewards/0/url"
    open_api = new_api(remote_reward_hosts=("rewards.example.org",))
    found = open_api.client.post("/v1/jobs/validate", json=body).json()["errors"]
    assert [error["code"] for error in found] == ["dataset_not_found"]


def test_rewards_are_listed_with_their_schema_and_the_weights_on_offer(api: Api):
    listed = {reward["id"]: reward for reward in api.client.get("/v1/rewards").json()["data"]}
    assert {"pick_score", "hpsv2", "hpsv2.1", "image_reward", "aesthetic", "symmetry"} < set(listed)
    assert {"remote", "weighted_sum"} < set(listed)
    assert listed["attribute_classifier"]["weights"]
    assert listed["image_reward"]["weights"] == []
    for name, reward in listed.items():
        assert reward["description"]
        assert reward["json_schema"]["properties"]["type"]["const"] == name


def test_dataset_must_exist_be_ready_and_belong_to_the_project(api: Api):
    unchecked = datasets.create(api.parts.store, project_id=DEFAULT_PROJECT_ID, filename="pairs.zip").id
    other = projects.create_project(api.parts.store, "other")
    found = {}
    for dataset_id in ("ds_" + "0" * 26, unchecked, api.ready_dataset(other.id)):
        answer = api.client.post("/v1/jobs", json={"spec": spec_for(dataset_id)})
        (error,) = assert_problem(answer, 422, "invalid_request")["errors"]
        assert error["pointer"] == "/spec/method/dataset/id"
        found[dataset_id] = error["code"]
    assert list(found.values()) == ["dataset_not_found", "dataset_not_ready", "dataset_not_found"]


# --- validate ------------------------------------------------------------------------------------------------------


def test_validate_says_everything_and_stores_nothing(api: Api):
    body = {"spec": spec_for(api.ready_dataset(num_usable_rows=50)), "name": "dry run"}
    answer = api.client.post("/v1/jobs/validate", json=body).json()
    assert answer["valid"]
    assert answer["errors"] == []
    assert answer["resolved_spec"]["training"]["learning_rate"] == 1e-5
    memory, _, _ = (answer["estimate"].pop(part) for part in ("memory", "duration", "disk"))
    parts = ("weights", "gradients", "optimizer", "reference", "activations", "conditioning")
    assert memory["phase"] == "training"
    assert memory["peak_gib"] == pytest.approx(sum(memory[part] for part in parts), abs=0.005)
    assert answer["estimate"].pop("calibration")["num_jobs"] == 0, (
        "nothing has ended yet that its bounds could be read from"
    )
    assert answer["estimate"] == {
        "examples_per_step": 64,
        "optimizer_steps": 4,
        "num_training_examples": 48,
        "epochs": 5.33,
        "num_checkpoints": 1,
        "evaluation_images": None,
        "num_trainable_parameters": 46_592,
    }
    assert any("fewer than the 64" in warning for warning in answer["warnings"])
    assert api.client.get("/v1/jobs").json()["data"] == []


def test_validate_answers_200_for_a_spec_that_would_be_refused(api: Api):
    answer = api.client.post("/v1/jobs/validate", json={"spec": {"model": {"type": "catalog"}}})
    assert answer.status_code == 200
    found = answer.json()
    assert (found["valid"], found["resolved_spec"], found["estimate"]) == (False, None, None)
    assert {error["pointer"] for error in found["errors"]} == {"/spec/model/name", "/spec/method"}
    unfit = api.client.post("/v1/jobs/validate", json={"spec": spec_for("ds_" + "0" * 26)}).json()
    assert not unfit["valid"]
    assert unfit["errors"][0]["code"] == "dataset_not_found"
    assert unfit["resolved_spec"] is not None


# --- lists ---------------------------------------------------------------------------------------------------------


def test_list_is_paged_newest_first_and_linked(any_api: Api):
    made = [any_api.new_job() for _ in range(5)]
    url, seen = "/v1/jobs?limit=2", []
    while url:
        answer = any_api.client.get(url)
        page = answer.json()
        ids = [job["id"] for job in page["data"]]
        assert (page["object"], page["first_id"], page["last_id"]) == ("list", ids[0], ids[-1])
        assert page["has_more"] == ("next" in answer.links)
        seen += ids
        url = answer.links["next"]["url"] if page["has_more"] else None
    assert seen == made[::-1]


def test_spec_is_told_of_one_job_and_not_of_many(any_api: Api):
    """A spec may hold ten thousand prompts, which a list of a hundred jobs would send a hundred times."""
    job_id = any_api.new_job(name="one")
    whole = any_api.client.get(f"/v1/jobs/{job_id}").json()
    (listed,) = any_api.client.get("/v1/jobs").json()["data"]
    apart = ("spec", "estimate", "throughput", "start_checks", "usage")
    assert listed == {name: value for name, value in whole.items() if name not in apart}
    assert (listed["method"], listed["model"]) == ("diffusion_dpo", "shapes")
    for verb in ("pause", "resume", "cancel"):
        answer = any_api.client.post(f"/v1/jobs/{job_id}/{verb}").json()
        assert set(answer) == set(listed)


def test_stored_answer_of_a_key_does_not_hold_the_spec_again(api: Api):
    first = api.post_job({"Idempotency-Key": "a-key"})
    with api.parts.store.read() as session:
        body = session.scalars(sa.select(IdempotencyKey.body)).one()
    assert body == {name: value for name, value in first.json().items() if name != "spec"}


def test_list_filters_by_status_method_model_and_metadata(any_api: Api):
    first = any_api.new_job(metadata={"team": "design", "run": "1"})
    second = any_api.new_job(metadata={"team": "design", "run": "2"})
    any_api.client.post(f"/v1/jobs/{first}/cancel")

    def ids(query: str) -> list[str]:
        return [job["id"] for job in any_api.client.get(f"/v1/jobs?{query}").json()["data"]]

    assert ids("status=cancelled") == [first]
    assert ids("status=cancelled&status=queued") == [second, first]
    assert ids("model=shapes&method=diffusion_dpo") == [second, first]
    assert ids("model=sdxl") == []
    assert ids("metadata[team]=design") == [second, first]
    assert ids("metadata[team]=design&metadata[run]=2") == [second]
    assert ids("metadata[team]=sales") == []


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "query:limit"),
        ("limit=101", "query:limit"),
        ("limit=many", "query:limit"),
        ("status=done", "query:status.0"),
        ("stauts=queued", "query:stauts"),
        ("metadata=x", "query:metadata"),
        ("limit[a]=1", "query:limit[a]"),
        ("metadata[a b]=1", "query:metadata[a b]"),
        ("metadata[a][b]=1", "query:metadata[a][b]"),
        ("metadata[a]=1&metadata[a]=2", "query:metadata[a]"),
        ("after=%00", "query:after"),
    ],
)
def test_wrong_parameters_are_refused_by_name(api: Api, query: str, pointer: str):
    problem = assert_problem(api.client.get(f"/v1/jobs?{query}"), 422, "invalid_request")
    assert [error["pointer"] for error in problem["errors"]] == [pointer]


def test_links_begin_with_the_address_that_clients_see(new_api: NewApi):
    api = new_api(public_url="https://attune.example/")
    answer = api.post_job()
    job_id = answer.json()["id"]
    assert answer.headers["location"] == f"https://attune.example/v1/jobs/{job_id}"
    api.new_job()
    assert api.client.get("/v1/jobs?limit=1").links["next"]["url"].startswith("https://attune.example/v1/jobs?limit=1&")
    api.run(job_id)
    (sample,) = api.client.get(f"/v1/jobs/{job_id}/samples").json()["data"]
    assert sample["image_url"].startswith("https://attune.example/v1/jobs/")


# --- waiting and changing ------------------------------------------------------------------------------------------


def test_wait_answers_when_the_job_ends(api: Api):
    job_id = api.new_job()
    timer = threading.Timer(0.6, api.run, [job_id])
    timer.start()
    started = time.monotonic()
    job = api.client.get(f"/v1/jobs/{job_id}?wait=30").json()
    timer.join()
    assert job["status"] == "succeeded"
    assert 0.5 < time.monotonic() - started < 10


def test_wait_answers_in_time_when_the_job_does_not_end(api: Api):
    job_id = api.new_job()
    started = time.monotonic()
    assert api.client.get(f"/v1/jobs/{job_id}?wait=0.3").json()["status"] == "queued"
    assert 0.3 <= time.monotonic() - started < 5
    assert_problem(api.client.get(f"/v1/jobs/{job_id}?wait=301"), 422, "invalid_request")


def test_cancel_pause_and_resume_follow_the_states(any_api: Api):
    job_id = any_api.new_job()

    def ask(verb: str) -> tuple[int, str]:
        answer = any_api.client.post(f"/v1/jobs/{job_id}/{verb}")
        return answer.status_code, answer.json().get("status" if answer.status_code == 202 else "code")

    assert ask("resume") == (409, "invalid_transition")
    assert ask("pause") == (202, "paused")
    assert ask("pause") == (202, "paused")
    assert ask("resume") == (202, "queued")
    any_api.claim(job_id)
    assert ask("pause") == (202, "pausing")
    assert ask("cancel") == (202, "cancelling")
    leases.finish(any_api.parts.store, job_id, 1, "stopped")
    assert ask("cancel") == (202, "cancelled")
    assert ask("resume") == (409, "invalid_transition")


@pytest.mark.parametrize("retryable", [True, False])
def test_a_failed_job_is_resumed_if_its_failure_may_pass(api: Api, retryable: bool):
    job_id = api.new_job()
    error = JobError(code="trainer_killed", message="killed", category="system", retryable=retryable)
    leases.finish(api.parts.store, job_id, api.claim(job_id), "failed", error)
    answer = api.client.post(f"/v1/jobs/{job_id}/resume")
    if retryable:
        assert (answer.status_code, answer.json()["status"], answer.json()["error"]) == (202, "queued", None)
        assert answer.json()["finished_at"] is None
        assert api.claim(job_id) == 2
    else:
        assert_problem(answer, 409, "invalid_transition")
        assert answer.json()["detail"].endswith("the job is failed, and the same would happen again (trainer_killed)")


@pytest.mark.parametrize("job_id", ["job_" + "0" * 26, "nope", "ds_" + "0" * 26, "%00", "..%2F..", "job_" + "0" * 4000])
def test_unknown_ids_answer_404(api: Api, job_id: str):
    for path in ("", "/events", "/metrics", "/checkpoints", "/samples", "/report", "/manifest", "/logs"):
        answer = api.client.get(f"/v1/jobs/{job_id}{path}")
        assert answer.json()["code"] in ("job_not_found", "not_found")
        assert answer.status_code == 404
    for verb in ("cancel", "pause", "resume"):
        assert api.client.post(f"/v1/jobs/{job_id}/{verb}").status_code == 404


# --- beginning from a checkpoint -----------------------------------------------------------------------------------


@pytest.fixture
def trained(api: Api) -> tuple[str, str]:
    """The data set and the checkpoint of a job that ended at step 4."""
    dataset_id = api.ready_dataset()
    job_id = api.new_job(spec=spec_for(dataset_id))
    api.run(job_id)
    return dataset_id, api.client.get(f"/v1/jobs/{job_id}").json()["latest_checkpoint_id"]


def begin_from(api: Api, checkpoint_id: str, spec: dict[str, Any]) -> Response:
    return api.client.post("/v1/jobs", json={"spec": spec, "resume_from": {"checkpoint_id": checkpoint_id}})


def test_a_job_begins_from_the_checkpoint_of_another_with_a_changed_spec(api: Api, trained: tuple[str, str]):
    dataset_id, checkpoint_id = trained
    job = begin_from(api, checkpoint_id, spec_for(dataset_id, steps=9, learning_rate=1e-6, batch_size=2))
    assert job.status_code == 201, job.text
    assert job.json()["resume_from"] == {"checkpoint_id": checkpoint_id}
    claim = leases.claim(api.parts.store, job.json()["id"], "w", 60)
    assert claim is not None
    assert claim.job.resume_from_checkpoint_id == checkpoint_id
    answer = api.client.delete(f"/v1/checkpoints/{checkpoint_id}?even_result=true")
    assert_problem(answer, 409, "checkpoint_in_use")


def test_a_checkpoint_that_a_job_cannot_begin_from_is_refused_with_the_reason(api: Api, trained: tuple[str, str]):
    dataset_id, checkpoint_id = trained
    spec = spec_for(dataset_id, steps=9)

    def problems(checkpoint_id: str, spec: dict[str, Any]) -> list[tuple[str, str]]:
        body = {"spec": spec, "resume_from": {"checkpoint_id": checkpoint_id}}
        validated = api.client.post("/v1/jobs/validate", json=body).json()
        answer = begin_from(api, checkpoint_id, spec)
        assert answer.status_code == 422
        assert answer.json()["errors"] == validated["errors"]
        return [(found["pointer"], found["code"]) for found in validated["errors"]]

    assert problems("ckpt_" + "0" * 26, spec) == [("/resume_from/checkpoint_id", "checkpoint_not_found")]
    assert problems(checkpoint_id, {**spec, "seed": 5}) == [("/spec/seed", "checkpoint_of_another_kind")]
    assert problems(checkpoint_id, spec_for(dataset_id, steps=4)) == [("/spec/training/steps", "nothing_left_to_train")]
    other = spec_for(api.ready_dataset(), steps=9)
    assert problems(checkpoint_id, other) == [("/spec/method/dataset", "checkpoint_of_another_kind")]


# --- idempotency ---------------------------------------------------------------------------------------------------


def test_same_key_and_body_create_once_and_answer_the_same(any_api: Api):
    body = {"spec": spec_for(any_api.ready_dataset()), "name": "once"}
    headers = {"Idempotency-Key": "a-key"}
    first = any_api.client.post("/v1/jobs", json=body, headers=headers)
    any_api.client.post(f"/v1/jobs/{first.json()['id']}/cancel")
    second = any_api.client.post("/v1/jobs", json=body, headers=headers)
    assert second.status_code == first.status_code == 201
    assert second.json() == first.json()  # the first answer, though the job has moved on
    assert second.headers["location"] == first.headers["location"]
    assert second.headers["idempotency-replayed"] == "true"
    assert len(any_api.client.get("/v1/jobs").json()["data"]) == 1


def test_same_key_with_another_body_is_refused(api: Api):
    headers = {"Idempotency-Key": "a-key"}
    assert api.post_job(headers, name="one").status_code == 201
    problem = assert_problem(api.post_job(headers, name="two"), 422, "idempotency_key_reused")
    assert problem["errors"][0]["pointer"] == "header:Idempotency-Key"


def test_key_whose_first_request_is_at_work_answers_409(api: Api):
    from alignment_core.spec import sha256_of_json
    from service.api.schemas.jobs import JobRequest

    body = {"spec": spec_for(api.ready_dataset())}
    request = JobRequest.model_validate(body).model_dump(mode="json")
    digest = sha256_of_json({"creates": "job", "request": request})
    idempotency.begin(api.parts.store, DEFAULT_PROJECT_ID, "a-key", digest, "job")
    answer = api.client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "a-key"})
    assert_problem(answer, 409, "idempotency_in_flight")
    assert answer.headers["retry-after"] == "1"


def test_refused_request_leaves_its_key_free(api: Api):
    dataset = datasets.create(api.parts.store, project_id=DEFAULT_PROJECT_ID, filename="pairs.parquet")
    body, headers = {"spec": spec_for(dataset.id)}, {"Idempotency-Key": "a-key"}
    assert_problem(api.client.post("/v1/jobs", json=body, headers=headers), 422, "invalid_request")
    body["spec"]["method"]["dataset"]["id"] = api.ready_dataset()
    assert api.client.post("/v1/jobs", json=body, headers=headers).status_code == 201


def test_concurrent_requests_under_one_key_create_one_job(any_api: Api):
    body, answers = {"spec": spec_for(any_api.ready_dataset())}, []

    def post() -> None:
        answers.append(any_api.client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "a-key"}).status_code)

    threads = [threading.Thread(target=post) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 201 in answers
    assert set(answers) <= {201, 409}
    page = jobs.list_jobs(any_api.parts.store, DEFAULT_PROJECT_ID)
    assert len(page.data) == 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
def test_malformed_key_is_refused(api: Api, key: str):
    problem = assert_problem(api.post_job({"Idempotency-Key": key}), 422, "invalid_request")
    assert problem["errors"][0]["pointer"] == "header:Idempotency-Key"


def test_images_far_below_the_resolution_are_warned_about_with_their_share(api: Api):
    dataset_id = api.ready_dataset(shorter_sides={"8": 40, "16": 60, "32": 3900})
    answer = api.client.post("/v1/jobs/validate", json={"spec": spec_for(dataset_id)}).json()
    assert any(
        one.startswith("1% of the images (40) have a shorter side below 16 pixels") for one in answer["warnings"]
    )
    few = api.ready_dataset(shorter_sides={"8": 39, "32": 3961})
    answer = api.client.post("/v1/jobs/validate", json={"spec": spec_for(few)}).json()
    assert not any("shorter side" in one for one in answer["warnings"])


def test_a_job_that_is_only_checked_is_told_apart(any_api: Api):
    answer = any_api.client.post(
        "/v1/jobs", params={"check_only": True}, json={"spec": spec_for(any_api.ready_dataset())}
    )
    assert answer.status_code == 201, answer.text
    assert (answer.json()["check_only"], answer.json()["start_checks"]) == (True, None)
    assert any_api.client.get(f"/v1/jobs/{any_api.new_job()}").json()["check_only"] is False
