"""What is made of an upload in pieces is made once, whatever breaks or dies meanwhile."""

import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.api import finished_uploads
from service.api.context import Parts
from service.store import uploads
from service.store.models import Dataset, Upload
from service.store.objects import DirectoryStore
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records.uploads import UploadRecord
from service.store.removals import remove_due
from tests.service.api.pieces import (
    announce,
    content_of,
    finish,
    make_old,
    send_all,
)
from tests.service.api.world import PARQUET, Api, assert_problem


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


@pytest.mark.parametrize(
    ("end", "status", "code"), [("refused", 422, "invalid_request"), ("deleted", 404, "upload_not_found")]
)
def test_who_was_taken_for_dead_hears_how_the_upload_ended_meanwhile(
    any_api: Api, monkeypatch: pytest.MonkeyPatch, end: str, status: int, code: str
):
    api, store = any_api, any_api.parts.store
    upload_id = announce(api, len(PARQUET))
    send_all(api, upload_id, PARQUET)
    original = finished_uploads.whole

    def whole_too_late(parts: Parts, upload: UploadRecord) -> AbstractContextManager[Any]:
        make_old(api, upload_id, updated_at=datetime.now(UTC) - uploads.FINISHING - timedelta(seconds=1))
        if end == "deleted":
            uploads.delete(store, PROJECT, upload_id)
        else:
            other = uploads.begin_finish(store, PROJECT, upload_id)
            assert other is not None
            uploads.refuse(store, other, {"code": code, "detail": "the file is none", "errors": []})
        remove_due(store, api.parts.objects)
        return original(parts, upload)

    monkeypatch.setattr(finished_uploads, "whole", whole_too_late)
    assert_problem(finish(api, upload_id), status, code)


def test_what_became_of_an_upload_is_deleted_with_every_word_of_it(api: Api):
    upload_id = announce(api, len(PARQUET))
    send_all(api, upload_id, PARQUET)
    dataset_id = finish(api, upload_id).json()["id"]
    assert api.client.delete(f"/v1/datasets/{dataset_id}").status_code == 200
    assert_problem(finish(api, upload_id), 404, "upload_not_found")
    with api.parts.store.read() as session:
        assert session.scalars(sa.select(Dataset.id)).all() == session.scalars(sa.select(Upload.id)).all() == []
