"""Uploads in pieces that are refused: what is wrong is told as early as it can be, and others have no part in it."""

import hashlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from service import prompt_reading
from service.store.objects import DirectoryStore
from service.store.projects import create_project
from service.store.removals import remove_due
from service.store.s3 import S3Store
from tests.service.api import test_prompt_sets
from tests.service.api.conftest import NewApi
from tests.service.api.pieces import (
    BYTES,
    announce,
    bytes_used,
    finish,
    offset_of,
    pieces_left,
    send,
    send_all,
)
from tests.service.api.test_audit import entries
from tests.service.api.world import PARQUET, Api, assert_problem, bearer


@pytest.mark.parametrize(("purpose", "content"), [("dataset", b"prompt,chosen\n" * 9), ("weights", PARQUET)])
def test_a_file_of_another_kind_is_refused_by_its_first_bytes(api: Api, purpose: str, content: bytes):
    upload_id = announce(api, 10**9, purpose)
    problem = assert_problem(send(api, upload_id, 0, content), 422, "invalid_request")
    assert [(one["pointer"], one["code"]) for one in problem["errors"]] == [("/file", "unknown_format")]
    assert offset_of(api, upload_id) == 0
    assert pieces_left(api) == []


def test_what_is_no_data_set_is_refused_in_the_end_and_stays_until_it_is_deleted(api: Api):
    upload_id = announce(api, 8)
    send_all(api, upload_id, b"no pairs", piece=3)
    for _ in range(2):
        problem = assert_problem(finish(api, upload_id), 422, "invalid_request")
        assert problem["errors"][0]["code"] == "unknown_format"
    assert api.client.get("/v1/datasets").json()["data"] == []
    assert api.client.delete(f"/v1/uploads/{upload_id}").json() == {
        "id": upload_id,
        "object": "upload",
        "deleted": True,
    }
    assert pieces_left(api) == []
    assert_problem(finish(api, upload_id), 404, "upload_not_found")


def test_a_file_that_arrived_differently_is_refused(api: Api):
    upload_id = announce(api, len(PARQUET), sha256=hashlib.sha256(b"another").hexdigest())
    send_all(api, upload_id, PARQUET)
    problem = assert_problem(finish(api, upload_id), 422, "invalid_request")
    assert problem["errors"][0]["code"] == "sha256_differs"
    assert hashlib.sha256(PARQUET).hexdigest() in problem["detail"]


@pytest.mark.parametrize("why", ["sha256_differs", "unknown_format", "no prompts"])
def test_what_was_refused_is_refused_again_without_being_read_and_holds_nothing(
    any_api: Api, monkeypatch: pytest.MonkeyPatch, why: str
):
    api = any_api
    content = PARQUET if why == "sha256_differs" else b'{"prompt": 3}\n'
    said: dict[str, Any] = {"sha256": hashlib.sha256(b"another").hexdigest()} if why == "sha256_differs" else {}
    purpose = "prompt_set" if why == "no prompts" else "dataset"
    upload_id = announce(api, len(content), purpose, filename="p.jsonl", **said)
    send_all(api, upload_id, content, piece=1000)
    first = assert_problem(finish(api, upload_id), 422, "invalid_request")

    def read(*_: Any) -> None:
        raise AssertionError("it was read again")

    remove_due(api.parts.store, api.parts.objects)
    assert pieces_left(api) == []
    assert bytes_used(api) == 0
    for objects in (DirectoryStore, S3Store):
        monkeypatch.setattr(objects, "open_range", read)
    again = assert_problem(finish(api, upload_id), 422, "invalid_request")
    left_out = {"request_id"}
    assert {k: v for k, v in again.items() if k not in left_out} == {
        k: v for k, v in first.items() if k not in left_out
    }
    (left,) = api.client.get("/v1/uploads").json()["data"]
    assert (left["id"], left["status"], left["offset"]) == (upload_id, "refused", len(content))
    assert_problem(send(api, upload_id, len(content), b""), 409, "upload_refused")
    assert api.client.delete(f"/v1/uploads/{upload_id}").status_code == 200
    finishing = [one for one in entries(api) if one["action"].endswith("/finish")]
    assert [(one["outcome"], one["status"]) for one in finishing] == 2 * [("refused", 422)]


KILLED = [
    sys.executable,
    "-c",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
]  # as a system without memory does


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [("LONGEST_SECONDS", 0.01, "takes_too_long"), ("COMMAND", KILLED, "needs_too_much_memory")],
)
def test_what_this_machine_had_no_time_or_memory_for_may_be_finished_again(
    api: Api, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, code: str
):
    upload_id = announce(api, 7, "prompt_set", filename="p.txt")
    send_all(api, upload_id, b"a cube\n")
    with monkeypatch.context() as patch:
        patch.setattr(prompt_reading, name, value)
        problem = assert_problem(finish(api, upload_id), 422, "invalid_request")
    assert problem["errors"][0]["code"] == code
    assert finish(api, upload_id).json()["num_prompts"] == 1


def test_prompts_that_cannot_be_read_are_refused_as_in_one_body(api: Api):
    content = b'{"prompt": 3}\n'
    upload_id = announce(api, len(content), "prompt_set", filename="p.jsonl")
    send_all(api, upload_id, content)
    refused = assert_problem(finish(api, upload_id), 422, "invalid_request")
    at_once = assert_problem(test_prompt_sets.upload(api, content, "p.jsonl"), 422, "invalid_request")
    assert refused["errors"] == at_once["errors"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"size_bytes": 0}, "/size_bytes"),
        ({"sha256": "ABC"}, "/sha256"),
        ({"purpose": "job"}, ""),  # no member of the union
        ({"purpose": "weights", "columns": {"prompt": "caption"}}, "/columns"),
        ({"columns": {"nothing": "caption"}}, "/columns"),
        ({"name": ""}, "/name"),
        ({"filename": "a\0b"}, "/filename"),
        ({"on_bad_row": "keep"}, "/on_bad_row"),
    ],
)
def test_what_is_said_of_a_file_is_checked_before_it_is_sent(api: Api, body: dict[str, Any], pointer: str):
    asked = {"purpose": "dataset", "filename": "pairs.parquet", "size_bytes": 5, **body}
    problem = assert_problem(api.client.post("/v1/uploads", json=asked), 422, "invalid_request")
    assert problem["errors"][0]["pointer"] == pointer


def test_a_file_over_the_limit_is_refused_before_it_is_sent(new_api: NewApi):
    api = new_api(max_upload_bytes=50_000)
    asked = {"purpose": "dataset", "filename": "pairs.parquet", "size_bytes": 50_001}
    assert_problem(api.client.post("/v1/uploads", json=asked), 413, "content_too_large")
    upload_id = announce(api, 50_000)
    assert_problem(send(api, upload_id, 0, b"PAR1" + bytes(3_000_000)), 413, "content_too_large")

    def endless() -> Iterator[bytes]:
        yield b"PAR1" + bytes(20)
        yield from (b"x" * 1000 for _ in range(3000))

    headers = {"Upload-Offset": "0", "Content-Type": BYTES}
    answer = api.client.patch(f"/v1/uploads/{upload_id}", content=endless(), headers=headers)
    assert_problem(answer, 413, "content_too_large")


def test_a_piece_says_that_it_is_bytes_and_where_it_begins(api: Api):
    upload_id = announce(api, len(PARQUET))
    for headers, pointer in (
        ({"Content-Type": BYTES}, "header:Upload-Offset"),
        ({"Content-Type": BYTES, "Upload-Offset": "-1"}, "header:Upload-Offset"),
        ({"Content-Type": "application/json", "Upload-Offset": "0"}, "header:Content-Type"),
    ):
        answer = api.client.patch(f"/v1/uploads/{upload_id}", content=PARQUET, headers=headers)
        assert assert_problem(answer, 422, "invalid_request")["errors"][0]["pointer"] == pointer


def test_another_projects_upload_is_not_there(keyed_api: Api):
    own, other = bearer(keyed_api), bearer(keyed_api, project_id=create_project(keyed_api.parts.store, "other").id)
    asked = {"purpose": "dataset", "filename": "p.parquet", "size_bytes": len(PARQUET)}
    path = f"/v1/uploads/{keyed_api.client.post('/v1/uploads', json=asked, headers=own).json()['id']}"
    sent = {"content": PARQUET, "headers": {"Upload-Offset": "0", "Content-Type": BYTES, **other}}
    for answer in (
        keyed_api.client.get(path, headers=other),
        keyed_api.client.patch(path, **sent),
        keyed_api.client.post(f"{path}/finish", headers=other),
        keyed_api.client.delete(path, headers=other),
    ):
        assert_problem(answer, 404, "upload_not_found")
    assert keyed_api.client.head(path, headers=other).status_code == 404
    assert keyed_api.client.get("/v1/uploads", headers=other).json()["data"] == []
    reading = bearer(keyed_api, "read")
    assert_problem(keyed_api.client.post(f"{path}/finish", headers=reading), 403, "insufficient_scope")
    assert keyed_api.client.get(path, headers=own).json()["offset"] == 0
