"""LoRAs to start from: uploaded, checked, named in a spec, kept while they are needed, and nobody else's."""

from typing import Any, Literal

import pytest

from service.store import datasets, leases, projects
from service.store.records.base import JobError
from tests.service.api.conftest import NewApi
from tests.service.api.world import LORA_REPORT, PARQUET, SAFETENSORS, Api, assert_problem, spec_for

UNKNOWN = "0" * 26


def upload(
    api: Api, content: bytes = SAFETENSORS, filename: str = "style.safetensors", key: str | None = None, **fields: str
):
    headers = {"Idempotency-Key": key} if key else {}
    return api.client.post("/v1/weights", files={"file": (filename, content)}, data=fields, headers=headers)


def test_uploaded_weights_are_stored_and_wait_to_be_checked(any_api: Api):
    answer = upload(any_api, name="my style")
    weights = answer.json()
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/weights/{weights['id']}"
    assert weights["id"].startswith("wts_")
    assert (weights["status"], weights["name"], weights["filename"]) == ("checking", "my style", "style.safetensors")
    (key,) = [info.key for info in any_api.parts.objects.list("projects/")]
    assert key == f"projects/proj_default/datasets/{weights['id']}/data.safetensors"
    assert b"".join(any_api.parts.objects.open_range(key)) == SAFETENSORS
    assert any_api.client.get(answer.headers["location"]).json() == weights


def test_checked_weights_say_what_they_hold(api: Api):
    weights_id = api.ready_weights()
    weights = api.client.get(f"/v1/weights/{weights_id}?wait=5").json()
    assert weights["status"] == "ready"
    assert weights["report"] == LORA_REPORT.model_dump(exclude={"layers", "shapes"}), (
        "what is too long to show is not shown"
    )


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a torch archive", PARQUET, bytes(8) + b"["])
def test_what_is_no_safetensors_file_is_refused_before_it_is_stored(api: Api, content: bytes):
    problem = assert_problem(upload(api, content, "style.bin"), 422, "invalid_request")
    assert "pickled weights" in problem["errors"][0]["message"]
    assert list(api.parts.objects.list("projects/")) == []


def test_weights_have_the_limit_of_uploads(new_api: NewApi):
    api = new_api(max_upload_bytes=1000)
    assert_problem(upload(api, SAFETENSORS + bytes(2000)), 413, "content_too_large")
    big = new_api(max_upload_bytes=20_000_000)
    assert upload(big, SAFETENSORS + bytes(9_000_000)).status_code == 201, "more than a body of JSON may have"


def test_the_same_upload_twice_under_one_key_is_one(api: Api):
    first, second = upload(api, key="once"), upload(api, key="once")
    assert first.json() == second.json()
    assert len(api.client.get("/v1/weights").json()["data"]) == 1


def test_weights_and_data_sets_are_told_apart(api: Api):
    weights_id, dataset_id = api.ready_weights(), api.ready_dataset()
    assert [one["id"] for one in api.client.get("/v1/weights").json()["data"]] == [weights_id]
    assert [one["id"] for one in api.client.get("/v1/datasets").json()["data"]] == [dataset_id]
    assert_problem(api.client.get(f"/v1/datasets/{weights_id}"), 404, "dataset_not_found")
    assert_problem(api.client.get(f"/v1/weights/{dataset_id}"), 404, "weights_not_found")
    assert_problem(api.client.delete(f"/v1/datasets/{weights_id}"), 404, "dataset_not_found")


def validate(api: Api, **changes: Any) -> dict[str, Any]:
    spec = {**spec_for(api.ready_dataset()), **changes}
    return api.client.post("/v1/jobs/validate", json={"spec": spec}).json()


def only_error(api: Api, **changes: Any) -> tuple[str, str, str]:
    (error,) = validate(api, **changes)["errors"]
    return error["pointer"], error["code"], error["message"]


def test_a_job_starts_from_ready_weights_and_its_spec_says_so(api: Api):
    weights_id = api.ready_weights()
    spec = {**spec_for(api.ready_dataset()), "start": {"lora": weights_id}}
    job = api.client.post("/v1/jobs", json={"spec": spec}).json()
    assert job["spec"]["start"] == {
        "lora": {"type": "stored", "id": weights_id},
        "mode": "merge",
        "initial": "lora",
        "alpha": None,
    }


def test_weights_that_cannot_be_used_are_told_at_post(api: Api):
    pointer = "/spec/start/lora/id"
    unknown = only_error(api, start={"lora": f"wts_{UNKNOWN}"})
    assert unknown[:2] == (pointer, "weights_not_found")
    checking = upload(api).json()["id"]
    assert only_error(api, start={"lora": checking})[:2] == (pointer, "weights_not_ready")
    claim = datasets.claim(api.parts.store, checking, "worker", 60)
    assert claim is not None
    error = JobError(code="lora_invalid", message="style.safetensors: unknown key 'x'", category="user")
    datasets.fail(api.parts.store, checking, claim.attempt, error)
    failed = only_error(api, start={"lora": checking})
    assert failed[:2] == (pointer, "weights_failed")
    assert "unknown key 'x'" in failed[2]


def test_an_adapter_that_goes_on_has_to_be_the_files(api: Api):
    weights_id = api.ready_weights(ranks=[4], alphas=[2.0])
    start = {"lora": weights_id, "mode": "train"}
    errors = {error["pointer"]: error["message"] for error in validate(api, start=start)["errors"]}
    assert errors == {
        "/spec/adapter/rank": "is 8, and the LoRA has the rank 4: write that",
        "/spec/adapter/alpha": "is 8, and the LoRA has the alpha 2: write that",
    }
    assert validate(api, start=start, adapter={"type": "lora", "rank": 4, "alpha": 2.0})["valid"]
    assert validate(api, start={"lora": weights_id})["valid"], "merged, it may be of any rank"


def test_what_a_file_of_several_ranks_or_of_a_text_encoder_is_good_for_is_said(api: Api):
    mixed = api.ready_weights(ranks=[4, 16], alphas=[8.0])
    assert "write start.mode merge" in only_error(api, start={"lora": mixed, "mode": "train"})[2]
    text = api.ready_weights(changes_text_encoder=True)
    start = {"lora": text, "mode": "train"}
    assert only_error(api, start=start)[:2] == ("/spec/start/mode", "start_unfit")
    assert validate(api, start=start, adapter={"type": "lora", "text_encoder": {}})["valid"], "its encoders are trained"


def test_a_file_of_pefts_by_itself_needs_its_alpha_in_the_spec(api: Api):
    weights_id = api.ready_weights(format="peft", says_alpha=False)
    pointer, code, message = only_error(api, start={"lora": weights_id})
    assert (pointer, code) == ("/spec/start/alpha", "lora_alpha_unknown")
    assert "write its lora_alpha as start.alpha" in message
    assert validate(api, start={"lora": weights_id, "alpha": 16.0})["valid"]


def test_local_paths_are_the_operators_to_allow(new_api: NewApi):
    start = {"lora": {"type": "local", "path": "/etc/passwd"}}
    assert only_error(new_api(), start=start)[:2] == ("/spec/start/lora/path", "local_path_refused")
    assert validate(new_api(allow_local_paths=True), start=start)["valid"]


def test_weights_stay_while_a_job_needs_them(any_api: Api):
    api, weights_id = any_api, any_api.ready_weights()
    spec = {**spec_for(api.ready_dataset()), "start": {"lora": weights_id}}
    job_id = api.client.post("/v1/jobs", json={"spec": spec}).json()["id"]
    problem = assert_problem(api.client.delete(f"/v1/weights/{weights_id}"), 409, "weights_in_use")
    assert job_id in problem["detail"]
    api.client.post(f"/v1/jobs/{job_id}/cancel")
    assert api.client.delete(f"/v1/weights/{weights_id}").json() == {
        "id": weights_id,
        "object": "weights",
        "deleted": True,
    }
    assert_problem(api.client.get(f"/v1/weights/{weights_id}"), 404, "weights_not_found")
    assert not [info.key for info in api.parts.objects.list("projects/") if weights_id in info.key]


def test_another_projects_weights_are_not_there(api: Api):
    other = projects.create_project(api.parts.store, "other").id
    weights_id = api.ready_weights(project_id=other)
    assert_problem(api.client.get(f"/v1/weights/{weights_id}"), 404, "weights_not_found")
    assert only_error(api, start={"lora": weights_id})[1] == "weights_not_found"


# --- checkpoints of earlier jobs ---


def trained(api: Api, kind: Literal["lora", "full"], **spec: Any) -> tuple[str, str]:
    """Ids of a job that has ended and of the checkpoint that it left."""
    body = {**spec_for(api.ready_dataset()), "adapter": kind, **spec}
    job_id = api.client.post("/v1/jobs", json={"spec": body}).json()["id"]
    attempt = api.claim(job_id)
    api.save_checkpoint(job_id, attempt, 4, kind=kind)
    leases.finish(api.parts.store, job_id, attempt, "succeeded")
    return job_id, api.checkpoint_id(job_id)


def test_a_lora_of_an_earlier_job_is_a_start_and_a_whole_model_is_a_model(api: Api):
    _, lora = trained(api, "lora")
    _, full = trained(api, "full")
    assert validate(api, start={"lora": lora})["valid"]
    assert validate(api, start={"lora": lora, "mode": "train"})["valid"]
    assert validate(api, model=full)["valid"]
    assert validate(api, model=full)["resolved_spec"]["model"] == {"type": "checkpoint", "id": full}
    pointer, code, message = only_error(api, start={"lora": full})
    assert (pointer, code) == ("/spec/start/lora/id", "checkpoint_of_another_kind")
    assert f'"model": "{full}"' in message
    pointer, code, message = only_error(api, model=lora)
    assert (pointer, code) == ("/spec/model/id", "checkpoint_of_another_kind")
    assert f'"start": {{"lora": "{lora}"}}' in message


def test_a_lora_fits_the_model_that_it_was_trained_on_and_goes_on_as_it_is(api: Api):
    _, full = trained(api, "full")
    job_id, on_full = trained(api, "lora", model=full)
    pointer, code, message = only_error(api, start={"lora": on_full})
    assert (pointer, code) == ("/spec/start/lora/id", "base_model_differs")
    assert full in message
    assert "'shapes'" in message
    other = {"type": "lora", "rank": 4}
    start = {"lora": on_full, "mode": "train"}
    assert only_error(api, model=full, start=start, adapter=other)[:2] == ("/spec/adapter", "start_unfit")
    assert job_id in only_error(api, model=full, start=start, adapter=other)[2]
    assert validate(api, model=full, start={"lora": on_full}, adapter=other)["valid"]


def test_checkpoints_that_are_not_there_are_told(api: Api):
    unknown = f"ckpt_{UNKNOWN}"
    assert only_error(api, model=unknown)[:2] == ("/spec/model/id", "checkpoint_not_found")
    assert only_error(api, start={"lora": unknown})[:2] == ("/spec/start/lora/id", "checkpoint_not_found")


def test_a_checkpoint_stays_while_a_job_starts_from_it(any_api: Api):
    api = any_api
    job_id, lora = trained(api, "lora")
    spec = {**spec_for(api.ready_dataset()), "start": {"lora": lora}}
    next_id = api.client.post("/v1/jobs", json={"spec": spec}).json()["id"]
    for path in (f"checkpoints/{lora}?even_result=true", f"jobs/{job_id}"):
        kind = path.partition("s/")[0]
        problem = assert_problem(api.client.delete(f"/v1/{path}"), 409, f"{kind}_in_use")
        assert next_id in problem["detail"]
    api.client.post(f"/v1/jobs/{next_id}/cancel")
    assert api.client.delete(f"/v1/jobs/{job_id}").status_code == 200
