"""Uploads in pieces: what has arrived stays, nothing is doubled or mixed, and what comes of them is what one body would have made."""

import hashlib
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import sqlalchemy as sa
from httpx2 import Response

from service.api import finished_uploads
from service.api.upload_pieces import PIECE_BYTES
from service.store import orphans, uploads
from service.store.models import Dataset, Upload
from service.store.objects import DirectoryStore
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.projects import create_project
from service.store.removals import remove_due
from tests.service.api import test_datasets, test_prompt_sets
from tests.service.api.conftest import NewApi
from tests.service.api.live import serving
from tests.service.api.world import PARQUET, SAFETENSORS, Api, assert_problem, bearer

LONG = b"PAR1" + b"".join(number.to_bytes(4, "big") for number in range(700_000)) + b"PAR1"  # not the same anywhere
BYTES = "application/offset+octet-stream"


def announce(api: Api, size_bytes: int, purpose: str = "dataset", **said: Any) -> str:
    """Id of an upload of so many bytes."""
    said = {"filename": "pairs.parquet", **said}
    answer = api.client.post("/v1/uploads", json={"purpose": purpose, "size_bytes": size_bytes, **said})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/uploads/{answer.json()['id']}"
    return answer.json()["id"]


def send(api: Api, upload_id: str, offset: int, content: bytes) -> Response:
    headers = {"Upload-Offset": str(offset), "Content-Type": BYTES}
    return api.client.patch(f"/v1/uploads/{upload_id}", content=content, headers=headers)


def send_all(api: Api, upload_id: str, content: bytes, piece: int = 999_983) -> None:
    for start in range(0, len(content), piece):
        answer = send(api, upload_id, start, content[start : start + piece])
        assert answer.status_code == 204, answer.text
        assert int(answer.headers["upload-offset"]) == min(start + piece, len(content))


def finish(api: Api, upload_id: str) -> Response:
    return api.client.post(f"/v1/uploads/{upload_id}/finish")


def offset_of(api: Api, upload_id: str) -> int:
    return int(api.client.head(f"/v1/uploads/{upload_id}").headers["upload-offset"])


def content_of(api: Api, dataset_id: str, suffix: str = ".parquet") -> bytes:
    return b"".join(api.parts.objects.open_range(f"projects/{PROJECT}/datasets/{dataset_id}/data{suffix}"))


def pieces_left(api: Api) -> list[str]:
    return [info.key for info in api.parts.objects.list(f"projects/{PROJECT}/uploads/")]


def test_what_comes_in_pieces_is_the_data_set_that_one_body_would_have_made(any_api: Api):
    said = {"name": "colourful", "columns": {"prompt": "caption"}, "on_bad_row": "drop"}
    sha256 = hashlib.sha256(LONG).hexdigest()
    upload_id = announce(any_api, len(LONG), sha256=sha256, **said)
    send_all(any_api, upload_id, LONG)
    told = any_api.client.get(f"/v1/uploads/{upload_id}")
    assert (told.json()["status"], told.json()["offset"]) == ("receiving", len(LONG))
    assert told.headers["upload-length"] == told.headers["upload-offset"] == str(len(LONG))
    assert [one["id"] for one in any_api.client.get("/v1/uploads").json()["data"]] == [upload_id]

    answer = finish(any_api, upload_id)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert answer.headers["location"] == f"/v1/datasets/{made['id']}"
    whole = test_datasets.upload(
        any_api, LONG, name="colourful", columns='{"prompt": "caption"}', on_bad_row="drop"
    ).json()
    its_own = {"id", "created_at", "updated_at"}
    assert {name: made[name] for name in made.keys() - its_own} == {
        name: whole[name] for name in whole.keys() - its_own
    }
    assert made["status"] == "checking"
    assert content_of(any_api, made["id"]) == LONG

    assert finish(any_api, upload_id).json() == made
    assert len(any_api.client.get("/v1/datasets").json()["data"]) == 2, "it was made once"
    assert any_api.client.get(f"/v1/uploads/{upload_id}").json()["resource_id"] == made["id"]
    assert any_api.client.get("/v1/uploads").json()["data"] == pieces_left(any_api) == []
    assert list((any_api.parts.settings.data_dir / "uploads").iterdir()) == []


@pytest.mark.parametrize(
    ("purpose", "content", "said", "collection"),
    [
        ("weights", SAFETENSORS, {"filename": "style.safetensors", "name": "my style"}, "weights"),
        (
            "prompt_set",
            b"text,other\na red circle,x\na blue square,y\n",
            {"filename": "p.csv", "column": "text"},
            "prompt_sets",
        ),
    ],
)
def test_weights_and_prompts_come_in_pieces_too(
    any_api: Api, purpose: str, content: bytes, said: dict[str, str], collection: str
):
    upload_id = announce(any_api, len(content), purpose, **said)
    send_all(any_api, upload_id, content, piece=7)
    answer = finish(any_api, upload_id)
    assert answer.status_code == 201, answer.text
    form = {name: value for name, value in said.items() if name != "filename"}
    whole = any_api.client.post(f"/v1/{collection}", files={"file": (said["filename"], content)}, data=form).json()
    left_out = {"id", "created_at", "updated_at"}
    assert {k: v for k, v in answer.json().items() if k not in left_out} == {
        k: v for k, v in whole.items() if k not in left_out
    }
    assert any_api.client.get(f"/v1/{collection}/{answer.json()['id']}").json() == answer.json()


def test_a_piece_for_another_place_is_refused_and_says_where_to_go_on(api: Api):
    upload_id = announce(api, len(PARQUET))
    assert send(api, upload_id, 0, PARQUET[:100]).status_code == 204
    for offset in (0, 99, 101, len(PARQUET)):
        answer = send(api, upload_id, offset, PARQUET[100:200])
        assert_problem(answer, 409, "upload_offset_differs")
        assert answer.headers["upload-offset"] == "100"
    assert offset_of(api, upload_id) == 100
    assert_problem(finish(api, upload_id), 409, "upload_incomplete")
    assert_problem(send(api, upload_id, 100, PARQUET[100:] + b"x"), 413, "content_too_large")
    assert send(api, upload_id, 100, b"").status_code == 204
    assert offset_of(api, upload_id) == 100
    send_all_after = send(api, upload_id, 100, PARQUET[100:])
    assert send_all_after.headers["upload-offset"] == str(len(PARQUET))
    made = finish(api, upload_id).json()
    assert content_of(api, made["id"]) == PARQUET
    assert_problem(send(api, upload_id, len(PARQUET), b""), 409, "upload_finished")


def test_tabs_that_send_the_same_file_at_once_do_no_harm(any_api: Api):
    upload_id = announce(any_api, len(LONG), sha256=hashlib.sha256(LONG).hexdigest())
    statuses: list[int] = []

    def tab(piece: int) -> None:
        while (offset := offset_of(any_api, upload_id)) < len(LONG):
            statuses.append(send(any_api, upload_id, offset, LONG[offset : offset + piece]).status_code)

    threads = [threading.Thread(target=tab, args=(piece,)) for piece in (150_001, 200_003, 300_007)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {204, 409}
    answers = [finish(any_api, upload_id) for _ in range(2)]
    assert [one.status_code for one in answers] == [201, 201]
    assert content_of(any_api, answers[0].json()["id"]) == LONG
    remove_due(any_api.parts.store, any_api.parts.objects)
    assert pieces_left(any_api) == []


def test_of_two_that_are_sent_for_one_place_the_first_counts(any_api: Api):
    content, other = b"PAR1" + bytes(500_000), b"PAR1" + b"x" * 500_000
    upload_id = announce(any_api, len(content))
    barrier = threading.Barrier(2)

    def tab(mine: bytes) -> None:
        barrier.wait()
        send(any_api, upload_id, 0, mine)

    threads = [threading.Thread(target=tab, args=(one,)) for one in (content, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = finish(any_api, upload_id).json()
    assert content_of(any_api, made["id"]) in (content, other), "never some of each"


def break_off(address: str, upload_id: str, offset: int, content: bytes, announced: int) -> None:
    """Say that so much comes, send less, and hang up."""
    parts = urlsplit(address)
    head = (
        f"PATCH /v1/uploads/{upload_id} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpload-Offset: {offset}\r\n"
        f"Content-Type: {BYTES}\r\nContent-Length: {announced}\r\n\r\n"
    )
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(head.encode() + content)


def test_what_came_before_the_connection_broke_is_kept(any_api: Api):
    content = b"PAR1" + LONG * 4  # more than a piece
    assert len(content) > PIECE_BYTES + 700_000
    upload_id = announce(any_api, len(content))
    with serving(any_api.client.app) as address:  # pyright: ignore[reportArgumentType]
        cut = PIECE_BYTES + 700_000
        break_off(address, upload_id, 0, content[:cut], len(content))
        deadline = time.monotonic() + 30
        while (offset := offset_of(any_api, upload_id)) < cut and time.monotonic() < deadline:
            time.sleep(0.02)
        assert offset == cut
        rest = httpx.patch(
            f"{address}/v1/uploads/{upload_id}",
            content=content[cut:],
            headers={"Upload-Offset": str(cut), "Content-Type": BYTES},
            timeout=60,
        )
        assert rest.status_code == 204, rest.text
        made = finish(any_api, upload_id).json()
    assert content_of(any_api, made["id"]) == content


# --- what is refused -----------------------------------------------------------------------------------------------


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


def test_an_announcement_under_one_key_is_one_upload(api: Api):
    asked = {"purpose": "dataset", "filename": "../x/pairs.parquet", "size_bytes": 5}
    first, second = (api.client.post("/v1/uploads", json=asked, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert first.json() == second.json()
    assert first.json()["filename"] == "pairs.parquet"


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


# --- quotas, time, failures ----------------------------------------------------------------------------------------


def bytes_used(api: Api) -> float:
    return next(one["used"] for one in api.client.get("/v1/quotas").json()["data"] if one["id"] == "bytes")


def test_an_upload_counts_from_its_announcement_and_once(new_api: NewApi):
    api = new_api(quota_bytes=len(PARQUET) + 100)
    upload_id = announce(api, len(PARQUET))
    assert bytes_used(api) == len(PARQUET)
    asked = {"purpose": "dataset", "filename": "pairs.parquet", "size_bytes": 101}
    refused = api.client.post("/v1/uploads", json=asked)
    assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")
    send_all(api, upload_id, PARQUET)
    assert finish(api, upload_id).status_code == 201
    assert bytes_used(api) == len(PARQUET), "as a data set, and no longer as an upload"
    forgotten = announce(api, 100)
    assert bytes_used(api) == len(PARQUET) + 100
    api.client.delete(f"/v1/uploads/{forgotten}")
    assert bytes_used(api) == len(PARQUET)


def make_old(api: Api, upload_id: str, **values: Any) -> None:
    with api.parts.store.write() as session:
        session.execute(sa.update(Upload).where(Upload.id == upload_id).values(**values))


def test_an_unfinished_upload_is_forgotten_a_day_after_its_last_piece(any_api: Api):
    upload_id, kept = announce(any_api, len(PARQUET)), announce(any_api, len(PARQUET))
    send(any_api, upload_id, 0, PARQUET[:100])
    expires = datetime.fromisoformat(any_api.client.get(f"/v1/uploads/{upload_id}").json()["expires_at"])
    assert timedelta(hours=23.9) < expires - datetime.now(UTC) < timedelta(hours=24.1)
    make_old(any_api, upload_id, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert uploads.forget_expired(any_api.parts.store) == 1
    remove_due(any_api.parts.store, any_api.parts.objects)
    assert pieces_left(any_api) == []
    assert_problem(send(any_api, upload_id, 100, PARQUET[100:]), 404, "upload_not_found")
    assert [one["id"] for one in any_api.client.get("/v1/uploads").json()["data"]] == [kept]


def test_pieces_of_an_upload_that_is_gone_are_orphans(api: Api):
    upload_id = announce(api, len(PARQUET))
    send(api, upload_id, 0, PARQUET[:100])
    store, objects = api.parts.store, api.parts.objects
    assert list(orphans.find(store, objects, timedelta(seconds=-60))) == []
    key = f"projects/{PROJECT}/uploads/upl_{'0' * 26}/{0:016d}-abc"
    objects.put_bytes(key, b"12345")
    assert [one.key for one in orphans.find(store, objects, timedelta(seconds=-60))] == [key]


def test_a_store_that_refuses_the_whole_file_leaves_the_upload_to_be_finished_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
):
    upload_id = announce(api, len(PARQUET))
    send_all(api, upload_id, PARQUET)
    with monkeypatch.context() as patch:
        patch.setattr(DirectoryStore, "put_file", lambda *_: (_ for _ in ()).throw(OSError("disk full: /secret")))
        assert_problem(finish(api, upload_id), 500, "internal_error")
    made = finish(api, upload_id)
    assert made.status_code == 201, made.text
    assert content_of(api, made.json()["id"]) == PARQUET
    failed = [one for one in api.client.get("/v1/datasets").json()["data"] if one["status"] == "failed"]
    assert [one["error"]["code"] for one in failed] == ["upload_not_stored"]


def test_a_piece_that_the_store_refuses_is_sent_again(api: Api, monkeypatch: pytest.MonkeyPatch):
    upload_id = announce(api, len(PARQUET))
    with monkeypatch.context() as patch:
        patch.setattr(DirectoryStore, "put_bytes", lambda *_: (_ for _ in ()).throw(OSError("disk full: /secret")))
        assert_problem(send(api, upload_id, 0, PARQUET), 500, "internal_error")
    assert offset_of(api, upload_id) == 0
    send_all(api, upload_id, PARQUET)
    assert finish(api, upload_id).status_code == 201


def test_who_asks_while_it_is_made_waits_and_one_that_died_is_taken_over(any_api: Api):
    api = any_api
    upload_id = announce(api, len(PARQUET))
    send_all(api, upload_id, PARQUET)
    taken = uploads.begin_finish(api.parts.store, PROJECT, upload_id)
    assert taken is not None
    answer = finish(api, upload_id)
    assert_problem(answer, 409, "upload_finishing")
    assert answer.headers["retry-after"] == "1"
    assert_problem(api.client.delete(f"/v1/uploads/{upload_id}"), 409, "upload_in_use")
    make_old(api, upload_id, updated_at=datetime.now(UTC) - uploads.FINISHING - timedelta(seconds=1))
    made = finish(api, upload_id)
    assert made.json()["id"] == taken.resource_id, "what the one that died had begun is what is made"
    uploads.give_back(api.parts.store, taken)  # it had not died
    assert finish(api, upload_id).json() == made.json()


def updated(api: Api, upload_id: str) -> datetime:
    with api.parts.store.read() as session:
        return session.scalars(sa.select(Upload.updated_at).where(Upload.id == upload_id)).one()


def test_nobody_takes_over_what_takes_long_to_be_stored(api: Api, monkeypatch: pytest.MonkeyPatch):
    upload_id = announce(api, len(PARQUET))
    send_all(api, upload_id, PARQUET)
    monkeypatch.setattr(finished_uploads, "BEAT_SECONDS", 0.02)
    original, long_ago = DirectoryStore.put_file, timedelta(hours=1)

    def slow(self: DirectoryStore, key: str, path: Path) -> None:
        make_old(api, upload_id, updated_at=datetime.now(UTC) - long_ago)
        until = time.monotonic() + 30
        while updated(api, upload_id) < datetime.now(UTC) - long_ago / 2 and time.monotonic() < until:
            time.sleep(0.02)
        with pytest.raises(uploads.OutOfPlaceError):
            uploads.begin_finish(api.parts.store, PROJECT, upload_id)
        original(self, key, path)

    monkeypatch.setattr(DirectoryStore, "put_file", slow)
    assert finish(api, upload_id).status_code == 201


def test_what_was_made_counts_though_its_maker_was_taken_for_dead(any_api: Api):
    api = any_api
    upload_id = announce(api, len(PARQUET))
    send_all(api, upload_id, PARQUET)
    taken = uploads.begin_finish(api.parts.store, PROJECT, upload_id)
    assert taken is not None
    make_old(api, upload_id, updated_at=datetime.now(UTC) - uploads.FINISHING - timedelta(seconds=1))
    other = uploads.begin_finish(api.parts.store, PROJECT, upload_id)
    assert other is not None
    uploads.give_back(api.parts.store, other)
    uploads.finish(api.parts.store, taken)
    found = uploads.get(api.parts.store, PROJECT, upload_id)
    assert found is not None
    assert (found.state, found.resource_id) == ("finished", taken.resource_id)


def test_what_became_of_an_upload_is_deleted_with_every_word_of_it(api: Api):
    upload_id = announce(api, len(PARQUET))
    send_all(api, upload_id, PARQUET)
    dataset_id = finish(api, upload_id).json()["id"]
    assert api.client.delete(f"/v1/datasets/{dataset_id}").status_code == 200
    assert_problem(finish(api, upload_id), 404, "upload_not_found")
    with api.parts.store.read() as session:
        assert session.scalars(sa.select(Dataset.id)).all() == session.scalars(sa.select(Upload.id)).all() == []


def test_memory_does_not_grow_with_the_file(api: Api):
    chunk, num_chunks = b"x" * 65_536, 1024  # 64 MiB
    size_bytes = 4 + len(chunk) * num_chunks
    upload_id = announce(api, size_bytes)

    def body() -> Iterator[bytes]:
        yield b"PAR1"
        for _ in range(num_chunks):
            yield chunk

    headers = {"Upload-Offset": "0", "Content-Type": BYTES}
    with serving(api.client.app) as address, httpx.Client(timeout=60) as client:  # pyright: ignore[reportArgumentType]
        tracemalloc.start()
        try:
            sent = client.patch(f"{address}/v1/uploads/{upload_id}", content=body(), headers=headers)
            assert sent.status_code == 204, sent.text
            made = client.post(f"{address}/v1/uploads/{upload_id}/finish")
            assert made.status_code == 201, made.text
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert made.json()["size_bytes"] == size_bytes
    assert peak < 4 * PIECE_BYTES < size_bytes / 1.9
