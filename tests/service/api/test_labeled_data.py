"""Data sets of labelings whose images are deleted while they are made: a clear refusal, and nothing half made."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.api.uploads import UPLOAD_PREFIX, uploads_folder
from service.store import labelings
from service.store.objects import DirectoryStore
from service.store.removals import remove_due
from tests.service.api.test_labelings import answer_all, asked, created, drawn_by
from tests.service.api.world import Api, assert_problem


@pytest.fixture
def judged(api: Api) -> tuple[str, str]:
    """Ids of a labeling that somebody has judged, and of its candidates."""
    labeling_id = created(api, repeated=0.0)
    candidates_id = api.client.get(f"/v1/labelings/{labeling_id}").json()["candidates_id"]
    answer_all(api, labeling_id, drawn_by(api, candidates_id), "aligned")
    return labeling_id, candidates_id


def deleting(api: Api, judged: tuple[str, str], original: Callable[..., Any]) -> Callable[..., Any]:
    """The function, before whose first call the labeling and then its candidates are deleted."""
    left = [f"/v1/labelings/{judged[0]}", f"/v1/candidates/{judged[1]}"]

    def after(*args: Any, **kwargs: Any) -> Any:
        while left:
            assert api.client.delete(left.pop(0)).status_code == 200
            remove_due(api.parts.store, api.parts.objects)
        return original(*args, **kwargs)

    return after


@pytest.mark.parametrize("moment", ["its images are looked up", "its images are read"])
def test_candidates_that_are_deleted_while_a_data_set_is_made_of_them_are_named(
    api: Api, judged: tuple[str, str], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    labeling_id, candidates_id = judged
    owner, name = (DirectoryStore, "open_range") if moment == "its images are read" else (labelings, "images_of")
    monkeypatch.setattr(owner, name, deleting(api, judged, getattr(owner, name)))
    refused = assert_problem(
        api.client.post(f"/v1/labelings/{labeling_id}/dataset", json={}), 409, "candidates_deleted"
    )
    assert refused["detail"] == (
        f"labeling '{labeling_id}' cannot be made a data set: candidates '{candidates_id}', whose images it shows, "
        "were deleted meanwhile"
    )
    assert api.client.get("/v1/datasets").json()["data"] == []
    assert list(api.parts.settings.data_dir.glob("uploads/*")) == []


def test_an_image_that_the_store_lost_is_another_matter(
    api: Api, judged: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = DirectoryStore.open_range

    def lost(self: DirectoryStore, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        self.delete(key)
        return original(self, key, start, end)

    monkeypatch.setattr(DirectoryStore, "open_range", lost)
    assert_problem(api.client.post(f"/v1/labelings/{judged[0]}/dataset", json={}), 404, "file_lost")


def test_who_is_asked_while_the_labeling_is_deleted_is_told_that_it_is_gone(
    api: Api, judged: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked(api, judged[0], "another")
    monkeypatch.setattr(labelings, "images_of", deleting(api, judged, labelings.images_of))
    answer = api.client.get(f"/v1/labelings/{judged[0]}/next", params={"annotator": "another"})
    assert_problem(answer, 404, "labeling_not_found")


def test_a_full_disk_is_507_and_what_a_dead_process_leaves_is_what_the_next_one_removes(
    api: Api, judged: tuple[str, str], monkeypatch: pytest.MonkeyPatch, small_disk: Path
) -> None:
    uploads, left = uploads_folder(api.parts.settings), list[Path]()
    original = DirectoryStore.put_file

    def looked_at(self: DirectoryStore, key: str, path: Path) -> None:
        left.extend(uploads.iterdir())
        original(self, key, path)

    monkeypatch.setattr(DirectoryStore, "put_file", looked_at)
    assert api.client.post(f"/v1/labelings/{judged[0]}/dataset", json={}).status_code == 201
    assert [(one.name.startswith(UPLOAD_PREFIX), one.suffix) for one in left] == [(True, "")]
    uploads.rmdir()
    uploads.symlink_to(small_disk)
    (small_disk / "rest").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    assert_problem(api.client.post(f"/v1/labelings/{judged[0]}/dataset", json={}), 507, "upload_folder_full")
