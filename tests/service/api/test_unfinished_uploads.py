"""Uploads in pieces of which nothing is made yet: what they count, how long they stay, and what is left of them."""

from datetime import UTC, datetime, timedelta

import pytest

from service.store import orphans, uploads
from service.store.objects import DirectoryStore
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.removals import remove_due
from tests.service.api.conftest import NewApi
from tests.service.api.pieces import (
    announce,
    bytes_used,
    finish,
    make_old,
    offset_of,
    pieces_left,
    send,
    send_all,
)
from tests.service.api.world import PARQUET, Api, assert_problem


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


def test_a_piece_that_the_store_refuses_is_sent_again(api: Api, monkeypatch: pytest.MonkeyPatch):
    upload_id = announce(api, len(PARQUET))
    with monkeypatch.context() as patch:
        patch.setattr(DirectoryStore, "put_file", lambda *_: (_ for _ in ()).throw(OSError("disk full: /secret")))
        assert_problem(send(api, upload_id, 0, PARQUET), 500, "internal_error")
    assert offset_of(api, upload_id) == 0
    send_all(api, upload_id, PARQUET)
    assert finish(api, upload_id).status_code == 201
