"""Uploads in pieces: what has arrived stays, nothing is doubled or mixed, and what comes of them is what one body would have made."""

import hashlib
import threading
import time
import tracemalloc
from collections.abc import Iterator

import httpx
import pytest
import sqlalchemy as sa

from service.api.upload_pieces import PIECE_BYTES
from service.store.models import Removal
from service.store.removals import remove_due
from tests.service.api import test_datasets
from tests.service.api.live import serving
from tests.service.api.pieces import (
    BYTES,
    LONG,
    announce,
    break_off,
    content_of,
    finish,
    offset_of,
    pieces_left,
    send,
    send_all,
)
from tests.service.api.world import PARQUET, SAFETENSORS, Api, assert_problem


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
    assert len(pieces_left(any_api)) == 1, "the other is gone at once"
    with any_api.parts.store.read() as session:
        assert session.scalars(sa.select(Removal.prefix)).all() == [], "and nothing is left to be done about it"
    made = finish(any_api, upload_id).json()
    assert content_of(any_api, made["id"]) in (content, other), "never some of each"


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


def test_an_announcement_under_one_key_is_one_upload(api: Api):
    asked = {"purpose": "dataset", "filename": "../x/pairs.parquet", "size_bytes": 5}
    first, second = (api.client.post("/v1/uploads", json=asked, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert first.json() == second.json()
    assert first.json()["filename"] == "pairs.parquet"


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
