"""Pairs of a data set are browsed page by page, on both kinds of store, by those who may see them."""

import io
from datetime import timedelta

import pytest
from PIL import Image

from service.store import datasets, orphans, projects
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.removals import remove_due
from tests.service.api.browsable import browsable, flawed, png, sound
from tests.service.api.conftest import NewApi
from tests.service.api.world import PARQUET, Api, assert_problem, bearer


def test_pairs_are_read_page_by_page_and_by_problem(any_api: Api):
    api = any_api
    dataset_id = browsable(api)
    path = f"/v1/datasets/{dataset_id}/pairs"
    first = api.client.get(f"{path}?limit=5")
    rest = api.client.get(first.links["next"]["url"]).json()
    rows = first.json()["data"] + rest["data"]
    assert [one["row"] for one in rows] == list(range(1, 9))
    assert (first.json()["has_more"], rest["has_more"]) == (True, False)
    assert rows[0]["prompt"] == "prompt 1"
    assert rows[0]["chosen"]["thumbnail_url"] == f"{path}/1/chosen.jpg"
    assert (rows[0]["chosen"]["width"], rows[0]["image"], rows[0]["problems"]) == (320, None, [])
    assert [one["row"] for one in rows if not one["is_usable"]] == [6]
    by_problem = {
        code: [one["row"] for one in api.client.get(f"{path}?problem={code}").json()["data"]]
        for code in ("duplicate_rows", "contradictory_pairs", "undecodable_image", "long_prompt")
    }
    assert by_problem == {
        "duplicate_rows": [5],
        "contradictory_pairs": [2, 7],
        "undecodable_image": [6],
        "long_prompt": [],
    }
    second = api.client.get(f"{path}?problem=contradictory_pairs&after=2").json()
    assert [one["row"] for one in second["data"]] == [7]
    assert rows[4]["problems"][0]["message"] == "row 5 repeats row 4; repeats count more"


def test_thumbnails_are_small_jpegs_and_an_image_that_is_none_has_none(any_api: Api):
    api = any_api
    path = f"/v1/datasets/{browsable(api)}/pairs"
    answer = api.client.get(f"{path}/1/rejected.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"
    with Image.open(io.BytesIO(answer.content)) as found:
        assert found.size == (160, 120)
        pixel = found.getpixel((80, 60))
    with Image.open(io.BytesIO(png(3))) as original:
        expected = original.getpixel((0, 0))
    assert isinstance(pixel, tuple)
    assert isinstance(expected, tuple)
    assert max(abs(one - other) for one, other in zip(pixel, expected, strict=True)) < 12
    etag = answer.headers["etag"]
    assert api.client.get(f"{path}/1/rejected.jpg", headers={"If-None-Match": etag}).status_code == 304
    assert api.client.head(f"{path}/1/rejected.jpg").headers["content-length"] == str(len(answer.content))
    assert api.client.get(f"{path}/6/chosen.jpg").status_code == 200, "the other image of the row"
    for missing in ("6/rejected.jpg", "1/image.jpg", "9/chosen.jpg"):
        assert_problem(api.client.get(f"{path}/{missing}"), 404, "thumbnail_not_found")
    assert_problem(api.client.get(f"{path}/0/chosen.jpg"), 422, "invalid_request")
    assert_problem(api.client.get(f"{path}/1/other.jpg"), 422, "invalid_request")
    assert_problem(api.client.get(f"{path}?after=x"), 422, "invalid_request")


def test_single_images_are_browsed_with_their_likes(api: Api):
    rows = [{"prompt": f"p {one}", "image": png(one, (40, 30)), "label": one % 2} for one in range(1, 5)]
    path = f"/v1/datasets/{browsable(api, rows)}/pairs"
    found = api.client.get(path).json()["data"]
    assert [one["liked"] for one in found] == [True, False, True, False]
    assert found[0]["chosen"] is None
    assert (found[0]["image"]["width"], found[0]["label"]) == (40, None)
    with Image.open(io.BytesIO(api.client.get(f"{path}/1/image.jpg").content)) as picture:
        assert picture.size == (40, 30), "what is small stays as it is"


def test_a_page_costs_the_same_wherever_it_is(api: Api, monkeypatch: pytest.MonkeyPatch):
    dataset_id = browsable(api, sound(400))
    api.parts.browsed._remembered.clear()
    read: list[int] = []
    objects = api.parts.objects
    original = type(objects).open_range

    def counted(self: object, key: str, start: int = 0, end: int | None = None):
        assert end is not None
        read.append(end - start)
        return original(objects, key, start, end)

    monkeypatch.setattr(type(objects), "open_range", counted)
    costs = []
    for after in (0, 200, 380):
        read.clear()
        api.parts.browsed._remembered.clear()
        page = api.client.get(f"/v1/datasets/{dataset_id}/pairs?after={after}").json()
        assert [one["row"] for one in page["data"]] == list(range(after + 1, after + 21))
        costs.append(len(read))
    assert max(costs) <= 4
    read.clear()
    assert api.client.get(f"/v1/datasets/{dataset_id}/pairs/381/chosen.jpg").status_code == 200
    assert len(read) <= 2, "the index is remembered from the page, and a row of it may begin another"


def test_what_was_checked_before_or_is_not_yet_says_so(api: Api):
    earlier = api.ready_dataset()
    told = assert_problem(api.client.get(f"/v1/datasets/{earlier}/pairs"), 404, "pairs_not_found")
    assert "checked before there were any; upload it again" in told["detail"]
    assert api.client.get(f"/v1/datasets/{earlier}").json()["browsing_bytes"] == 0
    waiting = api.client.post("/v1/datasets", files={"file": ("pairs.parquet", PARQUET)}).json()["id"]
    told = assert_problem(api.client.get(f"/v1/datasets/{waiting}/pairs"), 404, "pairs_not_found")
    assert told["detail"].endswith("has no pairs to browse: it is checking")
    assert_problem(api.client.get(f"/v1/datasets/{waiting}/pairs/1/chosen.jpg"), 404, "pairs_not_found")


def damage(api: Api, dataset_id: str) -> None:
    found = datasets.get(api.parts.store, DEFAULT_PROJECT_ID, dataset_id)
    assert found is not None
    assert found.browsing_key is not None
    api.parts.objects.put_bytes(found.browsing_key, bytes(found.browsing_bytes))
    api.parts.browsed._remembered.clear()


def test_what_is_damaged_is_told_and_leaves_the_page_of_the_report(api: Api):
    dataset_id = browsable(api)
    damage(api, dataset_id)
    for path in ("pairs", "pairs/1/chosen.jpg"):
        assert_problem(api.client.get(f"/v1/datasets/{dataset_id}/{path}"), 404, "pairs_damaged")
    page = api.client.get(f"/datasets/{dataset_id}")
    assert page.status_code == 200
    assert "There are no pictures to browse" in page.text


def test_another_projects_pairs_are_not_there(new_api: NewApi):
    api = new_api(api_keys_required=True)
    other = projects.create_project(api.parts.store, "other").id
    dataset_id = browsable(api, project_id=other)
    mine, theirs = bearer(api), bearer(api, project_id=other)
    for path in ("pairs", "pairs/1/chosen.jpg"):
        address = f"/v1/datasets/{dataset_id}/{path}"
        assert api.client.get(address, headers=theirs).status_code == 200
        assert_problem(api.client.get(address, headers=mine), 404, "dataset_not_found")
        assert_problem(api.client.get(address), 401, "unauthorized")


def test_pairs_go_with_their_data_set_and_count_among_its_bytes(any_api: Api):
    api = any_api
    dataset_id = browsable(api)
    shown = api.client.get(f"/v1/datasets/{dataset_id}").json()
    (used,) = [one["used"] for one in api.client.get("/v1/quotas").json()["data"] if one["id"] == "bytes"]
    assert used == shown["size_bytes"] + shown["browsing_bytes"]
    stored = {info.key: info.size_bytes for info in api.parts.objects.list("projects/")}
    assert sum(stored.values()) == used
    assert api.client.delete(f"/v1/datasets/{dataset_id}").status_code == 200
    for path in ("pairs", "pairs/1/chosen.jpg"):
        assert_problem(api.client.get(f"/v1/datasets/{dataset_id}/{path}"), 404, "dataset_not_found")
    remove_due(api.parts.store, api.parts.objects)
    assert list(api.parts.objects.list("projects/")) == []


def test_what_a_lost_check_made_is_an_orphan_and_the_rest_is_not(api: Api):
    dataset_id = browsable(api, flawed())
    prefix = f"projects/{DEFAULT_PROJECT_ID}/datasets/{dataset_id}"
    api.parts.objects.put_bytes(f"{prefix}/latents/{'a' * 32}/x.safetensors", b"encoded")
    api.parts.objects.put_bytes(f"{prefix}/browsing/attempt-7.bin", b"of a worker that was lost")
    waiting = api.client.post("/v1/datasets", files={"file": ("pairs.parquet", PARQUET)}).json()["id"]
    claim = datasets.claim(api.parts.store, waiting, "worker", 60)
    assert claim is not None
    on_its_way = f"projects/{DEFAULT_PROJECT_ID}/datasets/{waiting}/browsing/attempt-{claim.attempt}.bin"
    api.parts.objects.put_bytes(on_its_way, b"of a worker that checks")
    found = orphans.find(api.parts.store, api.parts.objects, timedelta(seconds=-2))
    assert [one.key for one in found] == [f"{prefix}/browsing/attempt-7.bin"]
