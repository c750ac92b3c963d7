"""Prompt sets: read as they arrive, named in specs by id, kept while they are needed, and nobody else's."""

from pathlib import Path
from typing import Any

import pytest

from alignment_core.spec import sha256_of_json
from service import prompt_reading
from service.store import projects
from tests.servers.bombs import write_bomb
from tests.service.api.conftest import NewApi
from tests.service.api.world import Api, assert_problem, spec_for

PROMPTS = ["a red circle", "a blue square", "a green triangle"]
TEXT = "a red circle\n\na blue square\na red circle\na green triangle\n"
SHA256 = sha256_of_json(PROMPTS)


def upload(api: Api, content: str | bytes = TEXT, filename: str = "p.txt", key: str | None = None, **fields: str):
    headers = {"Idempotency-Key": key} if key else {}
    return api.client.post("/v1/prompt_sets", files={"file": (filename, content)}, data=fields, headers=headers)


def uploaded(api: Api, content: str = TEXT) -> str:
    answer = upload(api, content)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def online(prompts: Any) -> dict[str, Any]:
    method = {"type": "ddpo", "reward": "colorfulness", "prompts": prompts}
    return {"model": "shapes", "method": method, "training": {"steps": 2, "batch_size": 16}}


def test_uploaded_prompts_are_a_set_at_once_and_what_is_left_out_is_said(any_api: Api) -> None:
    answer = upload(any_api, name="mine")
    found = answer.json()
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/prompt_sets/{found['id']}"
    assert (found["name"], found["num_prompts"], found["sha256"]) == ("mine", 3, SHA256)
    assert (found["report"]["empty_rows"], found["report"]["duplicate_rows"]) == ([2], [4])
    assert any_api.client.get(answer.headers["location"]).json() == found
    assert any_api.client.get("/v1/prompt_sets").json()["data"] == [found]
    lines = any_api.download(f"/v1/prompt_sets/{found['id']}/file").decode().splitlines()
    assert lines == [f'{{"prompt": "{prompt}"}}' for prompt in PROMPTS]
    first = any_api.client.get(f"/v1/prompt_sets/{found['id']}/prompts?limit=2")
    assert [one["prompt"] for one in first.json()["data"]] == PROMPTS[:2]
    assert first.json()["has_more"]
    rest = any_api.client.get(first.headers["link"].partition(">")[0][1:]).json()
    assert [one["prompt"] for one in rest["data"]] == PROMPTS[2:]
    assert not rest["has_more"]


def test_rows_that_cannot_be_prompts_are_named_and_nothing_is_kept(api: Api) -> None:
    problem = assert_problem(upload(api, b"a\n\xff\n" + b"x" * 2001), 422, "invalid_request")
    found = [(one["pointer"], one["code"], one["message"].partition(":")[0]) for one in problem["errors"]]
    assert found == [("/file", "not_utf8", "row 2"), ("/file", "prompt_too_long", "row 3")]
    assert_problem(upload(api, "label,words\n1,a\n", "p.csv"), 422, "invalid_request")
    assert upload(api, "label,words\n1,a\n", "p.csv", column="words").status_code == 201
    assert len(list(api.parts.objects.list("projects/"))) == 1


def test_prompts_have_a_limit_of_bytes(new_api: NewApi) -> None:
    api = new_api(max_upload_bytes=1000)
    assert_problem(upload(api, "x" * 3000), 413, "content_too_large")


def test_a_set_that_the_project_has_no_room_for_leaves_nothing(new_api: NewApi) -> None:
    api = new_api(quota_bytes=50)
    refused = upload(api)
    assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")
    assert list(api.parts.objects.list("projects/")) == []


def test_the_same_upload_twice_under_one_key_is_one(api: Api) -> None:
    assert upload(api, key="once").json() == upload(api, key="once").json()
    assert len(api.client.get("/v1/prompt_sets").json()["data"]) == 1
    assert_problem(upload(api, key="once", column="words"), 422, "idempotency_key_reused")


def test_a_job_names_a_set_and_its_spec_keeps_hash_and_number(api: Api) -> None:
    found = uploaded(api)
    kept = {"type": "prompt_set", "id": found, "sha256": SHA256, "count": 3}
    job = api.client.post("/v1/jobs", json={"spec": online(found)}).json()
    assert job["spec"]["method"]["prompts"] == kept
    evaluation = {"rewards": ["colorfulness"], "prompts": {"type": "prompt_set", "id": found}, "seeds_per_prompt": 4}
    spec = {**spec_for(api.ready_dataset()), "evaluation": evaluation}
    checked = api.client.post("/v1/jobs/validate", json={"spec": spec}).json()
    assert checked["valid"], checked["errors"]
    assert checked["resolved_spec"]["evaluation"]["prompts"] == kept
    assert checked["estimate"]["evaluation_images"] == 2 * 3 * 4


def test_sets_that_a_job_cannot_use_are_told_before_the_queue(api: Api) -> None:
    def errors(prompts: Any) -> list[tuple[str, str]]:
        found = api.client.post("/v1/jobs/validate", json={"spec": online(prompts)}).json()["errors"]
        return [(one["pointer"], one["code"]) for one in found]

    unknown, found = f"ps_{'0' * 26}", uploaded(api)
    assert errors(unknown) == [("/spec/method/prompts/id", "prompt_set_not_found")]
    other = {"type": "prompt_set", "id": found, "sha256": "0" * 64, "count": 4}
    assert errors(other) == [
        ("/spec/method/prompts/sha256", "prompt_set_differs"),
        ("/spec/method/prompts/count", "prompt_set_differs"),
    ]
    assert errors({"type": "local", "path": "/etc/passwd"}) == [("/spec/method/prompts/path", "local_path_refused")]
    assert_problem(api.client.post("/v1/jobs", json={"spec": online(unknown)}), 422, "invalid_request")


def test_a_set_that_a_job_needs_is_kept_and_its_hash_outlives_it(api: Api) -> None:
    found = uploaded(api)
    job = api.client.post("/v1/jobs", json={"spec": online(found)}).json()
    problem = assert_problem(api.client.delete(f"/v1/prompt_sets/{found}"), 409, "prompt_set_in_use")
    assert job["id"] in problem["detail"]
    api.client.post(f"/v1/jobs/{job['id']}/cancel")
    assert api.client.delete(f"/v1/prompt_sets/{found}").json() == {
        "id": found,
        "object": "prompt_set",
        "deleted": True,
    }
    assert_problem(api.client.get(f"/v1/prompt_sets/{found}"), 404, "prompt_set_not_found")
    assert list(api.parts.objects.list("projects/")) == []
    assert api.client.get(f"/v1/jobs/{job['id']}").json()["spec"]["method"]["prompts"]["sha256"] == SHA256


def test_another_projects_prompts_are_not_there(new_api: NewApi) -> None:
    api = new_api(api_keys_required=True)
    store = api.parts.store
    keys = [projects.create_key(store, projects.create_project(store, name).id, name)[0] for name in "ab"]
    first, second = ({"Authorization": f"Bearer {key}"} for key in keys)
    answer = api.client.post("/v1/prompt_sets", files={"file": ("p.txt", TEXT)}, headers=first)
    found = answer.json()["id"]
    assert api.client.get("/v1/prompt_sets", headers=second).json()["data"] == []
    for path in ("", "/prompts", "/file"):
        gone = api.client.get(f"/v1/prompt_sets/{found}{path}", headers=second)
        assert_problem(gone, 404, "prompt_set_not_found")
    assert_problem(api.client.delete(f"/v1/prompt_sets/{found}", headers=second), 404, "prompt_set_not_found")
    refused = api.client.post("/v1/jobs", json={"spec": online(found)}, headers=second)
    assert refused.json()["errors"][0]["code"] == "prompt_set_not_found"


@pytest.mark.parametrize("after", ["-1", "x", "9" * 12])
def test_a_place_that_is_none_is_refused(api: Api, after: str) -> None:
    found = uploaded(api)
    answer = api.client.get(f"/v1/prompt_sets/{found}/prompts?after={after}")
    assert_problem(answer, 422, "invalid_request")


def test_a_file_that_unpacks_to_more_than_it_may_is_refused_and_the_service_holds_none_of_it(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = write_bomb(tmp_path / "bomb.parquet", 768 << 20)
    assert bomb.stat().st_size < 1 << 20
    monkeypatch.setattr(prompt_reading, "MEMORY_BYTES", 512 << 20)
    before = peak_bytes()
    answer = upload(api, bomb.read_bytes(), "bomb.parquet")
    problem = assert_problem(answer, 422, "invalid_request")
    (error,) = problem["errors"]
    assert (error["pointer"], error["code"]) == ("/file", "needs_too_much_memory")
    assert error["message"] == "'bomb.parquet' cannot be read with 0.5 GiB of memory: what it unpacks to is too large"
    assert peak_bytes() - before < 100 << 20
    assert upload(api).status_code == 201


def peak_bytes() -> int:
    """The most that this process, in which the service runs, has held since it was last asked."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak begins anew
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def test_a_file_that_takes_too_long_is_refused_and_its_process_ended(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_reading, "LONGEST_SECONDS", 0.01)
    problem = assert_problem(upload(api, filename="slow.txt"), 422, "invalid_request")
    (error,) = problem["errors"]
    assert (error["code"], error["message"]) == ("takes_too_long", "'slow.txt' cannot be read within 0.01 seconds")
    assert list(api.parts.objects.list("projects/")) == []


def test_a_disk_that_is_full_while_prompts_are_written_is_no_fault_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text("a red circle\n" * 3)
    with pytest.raises(OSError, match="No space left on device"):
        prompt_reading.read_apart(file, "p.txt", Path("/dev/full"))
