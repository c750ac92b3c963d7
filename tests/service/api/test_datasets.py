"""Uploads: streamed to the store, hashed, limited, and never trusted in what they call themselves."""

import hashlib
import json
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment_core.reports import DatasetReport
from service.api.schemas.datasets import DATASET_REPORT_EXAMPLE
from service.api.uploads import plain_name
from service.store import datasets, projects
from service.store.objects import DirectoryStore, remove_abandoned
from service.store.records.base import JobError
from tests.service.api.conftest import NewApi
from tests.service.api.world import PARQUET, Api, assert_problem, spec_for


def upload(api: Api, content: bytes = PARQUET, filename: str = "pairs.parquet", key: str | None = None, **fields: str):
    headers = {"Idempotency-Key": key} if key else {}
    return api.client.post("/v1/datasets", files={"file": (filename, content)}, data=fields, headers=headers)


def stored(api: Api) -> list[str]:
    return [info.key for info in api.parts.objects.list("projects/")]


def test_uploaded_data_set_is_stored_hashed_and_waits_to_be_checked(any_api: Api):
    content = b"PAR1" + bytes(range(256)) * 20_000 + b"PAR1"  # more than one buffer
    answer = upload(any_api, content, name="colourful shapes")
    dataset = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/datasets/{dataset['id']}"
    assert dataset["status"] == "checking"
    assert (dataset["name"], dataset["filename"]) == ("colourful shapes", "pairs.parquet")
    assert dataset["size_bytes"] == len(content)
    assert dataset["sha256"] == hashlib.sha256(content).hexdigest()
    (key,) = stored(any_api)
    assert key == f"projects/proj_default/datasets/{dataset['id']}/data.parquet"
    assert b"".join(any_api.parts.objects.open_range(key)) == content
    assert any_api.client.get(answer.headers["location"]).json() == dataset
    assert list((any_api.parts.settings.data_dir / "uploads").iterdir()) == []


def test_checked_data_set_shows_its_report(api: Api):
    dataset_id = api.ready_dataset()
    dataset = api.client.get(f"/v1/datasets/{dataset_id}").json()
    assert (dataset["status"], dataset["format"], dataset["num_usable_rows"]) == ("ready", "parquet", 2000)
    assert api.client.get(f"/v1/datasets/{dataset_id}/report").json() == DATASET_REPORT_EXAMPLE


def test_unusable_data_set_says_why_and_keeps_its_report(api: Api):
    dataset_id = upload(api).json()["id"]
    assert_problem(api.client.get(f"/v1/datasets/{dataset_id}/report"), 404, "report_not_found")
    claim = datasets.claim(api.parts.store, dataset_id, "worker", 60)
    assert claim is not None
    report = DatasetReport.model_validate({**DATASET_REPORT_EXAMPLE, "num_usable_rows": 0})
    datasets.set_report(api.parts.store, dataset_id, claim.attempt, report)
    dataset = api.client.get(f"/v1/datasets/{dataset_id}").json()
    assert (dataset["status"], dataset["error"]["code"]) == ("failed", "dataset_unusable")
    assert api.client.get(f"/v1/datasets/{dataset_id}/report").json()["num_usable_rows"] == 0


def fail(api: Api, dataset_id: str) -> None:
    claim = datasets.claim(api.parts.store, dataset_id, "worker", 60)
    assert claim is not None
    error = JobError(code="unreadable_file", message="pairs.parquet: not a parquet file", category="user")
    datasets.fail(api.parts.store, dataset_id, claim.attempt, error)


def test_report_of_a_data_set_that_could_not_be_read_says_why(api: Api):
    dataset_id = upload(api).json()["id"]
    fail(api, dataset_id)
    problem = assert_problem(api.client.get(f"/v1/datasets/{dataset_id}/report"), 404, "report_not_found")
    assert problem["detail"].endswith("has no report: pairs.parquet: not a parquet file")


def test_wait_answers_when_the_check_has_ended_or_the_time_is_over(api: Api):
    dataset_id = upload(api).json()["id"]
    started = time.monotonic()
    assert api.client.get(f"/v1/datasets/{dataset_id}?wait=0.2").json()["status"] == "checking"
    assert 0.2 <= time.monotonic() - started < 5
    timer = threading.Timer(0.3, fail, [api, dataset_id])
    timer.start()
    assert api.client.get(f"/v1/datasets/{dataset_id}?wait=30").json()["status"] == "failed"
    assert time.monotonic() - started < 10
    timer.join()
    too_long = assert_problem(api.client.get(f"/v1/datasets/{dataset_id}?wait=301"), 422, "invalid_request")
    assert too_long["errors"][0]["pointer"] == "query:wait"


def test_data_sets_are_listed_in_pages(api: Api):
    made = [upload(api).json()["id"] for _ in range(3)]
    first = api.client.get("/v1/datasets?limit=2")
    rest = api.client.get(first.links["next"]["url"])
    assert [one["id"] for one in first.json()["data"] + rest.json()["data"]] == made[::-1]


def test_another_projects_data_set_is_not_there(api: Api):
    other = api.ready_dataset(projects.create_project(api.parts.store, "other").id)
    for path in ("", "/report"):
        assert_problem(api.client.get(f"/v1/datasets/{other}{path}"), 404, "dataset_not_found")


def test_same_upload_under_one_key_is_stored_once(api: Api):
    first, second = upload(api, key="k"), upload(api, key="k")
    assert second.json() == first.json()
    assert len(stored(api)) == 1
    other = upload(api, PARQUET + b"more", key="k")
    assert_problem(other, 422, "idempotency_key_reused")


def test_store_that_refuses_the_file_marks_the_data_set_and_frees_the_key(api: Api, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(DirectoryStore, "put_file", lambda *_: (_ for _ in ()).throw(OSError("disk full: /secret/path")))
        problem = assert_problem(upload(api, key="k"), 500, "internal_error")
    assert "secret" not in str(problem)
    (dataset,) = api.client.get("/v1/datasets").json()["data"]
    assert (dataset["status"], dataset["error"]["code"]) == ("failed", "upload_not_stored")
    assert upload(api, key="k").status_code == 201


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "filename"),
    [(b"", "pairs.parquet"), (b"prompt,chosen\n", "pairs.csv"), (b"PAR", "a.parquet"), (b"MZ\x90\0", "pairs.zip")],
)
def test_file_that_is_no_data_set_is_refused_whatever_its_name(api: Api, content: bytes, filename: str):
    problem = assert_problem(upload(api, content, filename), 422, "invalid_request")
    assert [(error["pointer"], error["code"]) for error in problem["errors"]] == [("/file", "unknown_format")]
    assert stored(api) == api.client.get("/v1/datasets").json()["data"] == []


def test_zip_is_taken_by_its_first_bytes(api: Api):
    assert upload(api, b"PK\x03\x04rest", "data.bin").status_code == 201
    assert stored(api)[0].endswith("data.zip")


@pytest.mark.parametrize(
    ("filename", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\data\\pairs.parquet", "pairs.parquet"),
        ("/absolute/ü.parquet", "ü.parquet"),
        ("..", "unnamed"),
        ("a" * 300 + ".zip", "a" * 251 + ".zip"),
    ],
)
def test_file_name_is_shown_and_never_a_path(api: Api, filename: str, shown: str):
    assert upload(api, filename=filename).json()["filename"] == shown
    assert all(".." not in key and "passwd" not in key for key in stored(api))


@given(st.text(max_size=300))
def test_any_file_name_becomes_a_plain_one(filename: str):
    name = plain_name(filename)
    assert 1 <= len(name) <= 255
    assert name.isprintable()
    assert not set(name) & {"/", "\\", "\0", "\n"}
    assert name not in (".", "..")


def test_upload_over_the_limit_is_refused_before_it_is_sent_or_while(new_api: NewApi):
    api = new_api(max_upload_bytes=50_000)
    assert upload(api, b"PAR1" + b"x" * 49_000).status_code == 201
    assert_problem(upload(api, b"PAR1" + b"x" * 50_000), 413, "content_too_large")
    assert_problem(upload(api, b"PAR1" + b"x" * 3_000_000), 413, "content_too_large")

    def endless():
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.parquet"\r\n\r\nPAR1'
        for _ in range(3000):
            yield b"x" * 1000

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert_problem(api.client.post("/v1/datasets", content=endless(), headers=headers), 413, "content_too_large")
    assert list((api.parts.settings.data_dir / "uploads").iterdir()) == []
    assert len(stored(api)) == 1


FILE_PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.parquet"\r\n\r\nPAR1\r\n'


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", FILE_PART + b"--b--\r\n"),
        ("multipart/form-data; boundary=b", b""),
        ("multipart/form-data; boundary=b", b"nonsense"),
        ("multipart/form-data; boundary=b", FILE_PART),
        ("multipart/form-data; boundary=b", FILE_PART + FILE_PART + b"--b--\r\n"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nx\r\n--b--\r\n',
        ),
        ("multipart/form-data; boundary=b", FILE_PART.replace(b'"file"', b'"data"') + b"--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nX-Long: " + b"y" * 20_000 + b"\r\n\r\nPAR1\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nno-colon\r\n\r\nPAR1\r\n--b--\r\n"),
    ],
)
def test_malformed_form_is_refused_and_leaves_nothing(api: Api, content_type: str, body: bytes):
    answer = api.client.post("/v1/datasets", content=body, headers={"Content-Type": content_type})
    assert_problem(answer, 422, "invalid_request")
    assert stored(api) == []
    uploads = api.parts.settings.data_dir / "uploads"
    assert not uploads.exists() or list(uploads.iterdir()) == []


@pytest.mark.parametrize("name", ["", "x" * 201, "y" * 5000, "a\0b"])
def test_name_has_limits(api: Api, name: str):
    problem = assert_problem(upload(api, name=name), 422, "invalid_request")
    assert problem["errors"][0]["pointer"] == "/name"


@pytest.mark.parametrize("dataset_id", ["ds_" + "0" * 26, "nope", "%00"])
def test_unknown_data_sets_answer_404(api: Api, dataset_id: str):
    for path in ("", "/report"):
        assert_problem(api.client.get(f"/v1/datasets/{dataset_id}{path}"), 404, "dataset_not_found")


def test_uploads_at_once_do_not_mix(api: Api):
    contents = [b"PAR1" + bytes([number]) * 300_000 for number in range(6)]
    threads = [threading.Thread(target=upload, args=(api, content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {b"".join(api.parts.objects.open_range(key)) for key in stored(api)}
    assert found == set(contents)


def test_files_of_killed_uploads_are_removed_at_the_next_start(tmp_path: Path):
    for name, age in (("upload-old", 100), ("upload-young", 1), ("other", 100)):
        (tmp_path / name).write_bytes(b"half a file")
        os.utime(tmp_path / name, times=(time.time() - age,) * 2)
    remove_abandoned(tmp_path, "upload-*", older_than_seconds=50)
    assert {path.name for path in tmp_path.iterdir()} == {"upload-young", "other"}
    remove_abandoned(tmp_path / "absent", "upload-*", older_than_seconds=50)


def test_failed_data_set_is_refused_by_jobs_with_its_reason(api: Api):
    dataset_id = upload(api).json()["id"]
    fail(api, dataset_id)
    answer = api.client.post("/v1/jobs", json={"spec": spec_for(dataset_id)})
    (found,) = assert_problem(answer, 422, "invalid_request")["errors"]
    assert found["code"] == "dataset_failed"
    assert "not a parquet file" in found["message"]


# --- columns -------------------------------------------------------------------------------------------------------


def test_columns_are_kept_with_the_data_set(any_api: Api):
    columns = {"prompt": "caption", "image_0": "a", "image_1": "b", "winner": "better"}
    dataset = upload(any_api, columns=json.dumps(columns)).json()
    assert dataset["columns"] == columns
    assert any_api.client.get(f"/v1/datasets/{dataset['id']}").json()["columns"] == columns
    assert upload(any_api).json()["columns"] is None


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ("caption", "JSON"),
        ('{"promt": "caption"}', "promt"),
        ("{}", "at least 1"),
        ('{"prompt": 7}', "string"),
        ('{"prompt": ""}', "at least 1 character"),
        ('["prompt"]', ""),
        ("[" * 4000, "JSON"),
    ],
)
def test_columns_that_say_nothing_are_refused(api: Api, columns: str, words: str):
    problem = assert_problem(upload(api, columns=columns), 422, "invalid_request")
    assert problem["errors"][0]["pointer"].startswith("/columns")
    assert words in json.dumps(problem["errors"])
    assert stored(api) == []


def test_another_mapping_is_another_request(api: Api):
    first = upload(api, key="k", columns='{"prompt": "caption"}')
    assert upload(api, key="k", columns='{ "prompt": "caption" }').json() == first.json()
    assert_problem(upload(api, key="k", columns='{"prompt": "text"}'), 422, "idempotency_key_reused")


def test_what_a_bad_row_does_is_kept_with_the_data_set_and_is_part_of_the_request(api: Api):
    assert upload(api).json()["on_bad_row"] == "fail"
    answer = upload(api, key="k", on_bad_row="drop")
    assert answer.json()["on_bad_row"] == "drop"
    assert_problem(upload(api, key="k"), 422, "idempotency_key_reused")
    problem = assert_problem(upload(api, on_bad_row="ignore"), 422, "invalid_request")
    assert problem["errors"][0]["pointer"] == "/on_bad_row"
    record = datasets.get(api.parts.store, "proj_default", answer.json()["id"])
    assert record is not None
    assert record.on_bad_row == "drop"
