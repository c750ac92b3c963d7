"""Labelings over HTTP: blind questions in everybody's own order, votes that are neither lost nor doubled, and what comes of them."""

import hashlib
import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from alignment_core.datasets.tables import PROVENANCE
from alignment_core.reports import HumanComparison
from service.api.people_on_page import with_people
from service.store import datasets
from service.store.projects import DEFAULT_PROJECT_ID
from tests.service.api import test_candidates
from tests.service.api.conftest import NewApi
from tests.service.api.test_auth import key_of
from tests.service.api.world import PNG, Api, assert_problem


def candidates_of(api: Api, **changes: Any) -> str:
    found = test_candidates.created(api, **changes)["id"]
    test_candidates.drawn(api, found)
    return found


def created(api: Api, candidates_id: str | None = None, **body: Any) -> str:
    """Id of a labeling: 12 pairs, 6 of them asked again."""
    asked = {"candidates_id": candidates_id or candidates_of(api), "num_pairs": 100, "repeated": 0.5, **body}
    answer = api.client.post("/v1/labelings", json=asked)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/labelings/{answer.json()['id']}"
    return answer.json()["id"]


def asked(api: Api, labeling_id: str, annotator: str = "me", limit: int = 1) -> list[dict[str, Any]]:
    params = {"annotator": annotator, "limit": limit}
    return api.client.get(f"/v1/labelings/{labeling_id}/next", params=params).json()["data"]


def say(api: Api, labeling_id: str, question: int, choice: str, annotator: str = "me") -> dict[str, Any]:
    place = f"/v1/labelings/{labeling_id}/votes/{question}"
    answer = api.client.put(place, params={"annotator": annotator}, json={"choice": choice})
    assert answer.status_code == 200, answer.text
    return answer.json()


def drawn_by(api: Api, candidates_id: str) -> dict[str, str]:
    images = api.client.get(f"/v1/candidates/{candidates_id}/images", params={"limit": 100}).json()["data"]
    return {one["id"]: one["contender"] for one in images}


def answer_all(api: Api, labeling_id: str, better: dict[str, str], name: str, annotator: str = "me") -> int:
    """Prefer what the contender of this name drew, and call it a tie where both did or neither; how many were asked."""
    num = 0
    while found := asked(api, labeling_id, annotator):
        (one,) = found
        left, right = (better[one[side]["image_id"]] == name for side in ("left", "right"))
        say(api, labeling_id, one["question"], "tie" if left == right else "left" if left else "right", annotator)
        num += 1
    return num


def test_everybody_has_an_order_and_sides_of_their_own_and_each_question_once(any_api: Api) -> None:
    api = any_api
    labeling_id = created(api)
    found = api.client.get(f"/v1/labelings/{labeling_id}").json()
    assert (found["num_pairs"], found["num_questions"]) == (12, 18)
    mine, yours = (asked(api, labeling_id, name, 20) for name in ("me", "you"))
    assert sorted(one["question"] for one in mine) == sorted(one["question"] for one in yours) == list(range(18))
    assert [one["question"] for one in mine] != [one["question"] for one in yours]
    sides = {one["question"]: one["left"]["image_id"] for one in yours}
    assert 0 < sum(one["left"]["image_id"] == sides[one["question"]] for one in mine) < 18
    assert asked(api, labeling_id, "me", 20) == mine
    assert "contender" not in json.dumps(mine)
    assert api.download(mine[0]["left"]["image_url"]).startswith(PNG)
    seen: list[set[str]] = []
    for one in mine:
        pair = {one["left"]["image_id"], one["right"]["image_id"]}
        if one["question"] >= 12:
            assert pair in seen, "what is asked again was asked before"
        seen.append(pair)


def test_votes_are_neither_lost_nor_doubled_and_can_be_taken_back(any_api: Api) -> None:
    api = any_api
    labeling_id = created(api)
    first, second = asked(api, labeling_id, limit=2)
    with ThreadPoolExecutor(4) as tabs:  # two tabs, each of which sends twice
        told = list(tabs.map(lambda _: say(api, labeling_id, first["question"], "left"), range(4)))
    assert [one["progress"]["answered"] for one in told] == [1, 1, 1, 1]
    assert asked(api, labeling_id)[0] == second
    assert say(api, labeling_id, second["question"], "skip")["progress"]["last"] == second["question"]
    assert say(api, labeling_id, second["question"], "both_bad")["progress"]["answered"] == 2
    place = f"/v1/labelings/{labeling_id}/votes/{second['question']}"
    listed = {one["id"]: one["answered"] for one in api.client.get("/v1/labelings").json()["data"]}
    assert listed[labeling_id] == api.client.get(f"/v1/labelings/{labeling_id}").json()["answered"] == 2
    of_another = api.client.get("/v1/labelings", params={"annotator": "you"}).json()["data"]
    assert {one["answered"] for one in of_another} == {0}
    for _ in range(2):
        undone = api.client.delete(place).json()
        assert (undone["choice"], undone["progress"]["last"]) == (None, first["question"])
    assert asked(api, labeling_id)[0] == second
    assert_problem(api.client.put(f"{place}999", json={"choice": "left"}), 404, "question_not_found")
    assert_problem(api.client.put(place, json={"choice": "best"}), 422, "invalid_request")


def test_people_agree_with_themselves_and_with_each_other_as_their_votes_say(api: Api) -> None:
    labeling_id = created(api)
    drawn = drawn_by(api, api.client.get(f"/v1/labelings/{labeling_id}").json()["candidates_id"])
    for annotator, name in (("ada", "aligned"), ("bob", "aligned"), ("eve", "base")):
        assert answer_all(api, labeling_id, drawn, name, annotator) == 18
    found = api.client.get(f"/v1/labelings/{labeling_id}/results").json()
    assert found["num_judged_pairs"] == 12
    assert [one["itself"]["agreed"] for one in found["annotators"]] == [1.0, 1.0, 1.0]
    pairs = {tuple(one["annotators"]): one for one in found["agreement"]}
    assert (pairs["ada", "bob"]["num_pairs"], pairs["ada", "bob"]["kappa"]) == (12, 1.0)
    assert pairs["ada", "eve"]["agreed"] == pytest.approx(1 / 3)
    assert pairs["ada", "eve"]["kappa"] < found["alpha"] < 1
    assert found["human"] is None


def test_the_votes_become_a_data_set_of_the_normal_kind_with_its_provenance(any_api: Api) -> None:
    api = any_api
    labeling_id = created(api, repeated=0.0)
    place = f"/v1/labelings/{labeling_id}"
    assert_problem(api.client.post(f"{place}/dataset", json={}), 409, "nothing_judged")
    drawn = drawn_by(api, api.client.get(place).json()["candidates_id"])
    answer_all(api, labeling_id, drawn, "aligned", "ada")
    answer_all(api, labeling_id, drawn, "aligned", "bob")
    one = asked(api, labeling_id, "eve")[0]
    say(api, labeling_id, one["question"], "both_bad", "eve")
    headers = {"Idempotency-Key": "once"}
    answer = api.client.post(f"{place}/dataset", json={"name": "taste"}, headers=headers)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["name"], made["status"]) == ("taste", "checking")
    assert made["provenance"]["labeling_id"] == labeling_id
    assert made["provenance"]["annotators"] == ["ada", "bob", "eve"]
    assert made["provenance"]["sampling"]["num_inference_steps"] == 20
    assert api.client.post(f"{place}/dataset", json={"name": "taste"}, headers=headers).json() == made
    stored = datasets.get(api.parts.store, DEFAULT_PROJECT_ID, made["id"])
    assert stored is not None
    assert stored.object_key is not None
    with zipfile.ZipFile(io.BytesIO(b"".join(api.parts.objects.open_range(stored.object_key)))) as archive:
        rows = [json.loads(line) for line in archive.read("pairs.jsonl").splitlines()]
        assert archive.read(rows[0]["chosen"]).startswith(PNG)
    assert len(rows) == 12
    assert {column for row in rows for column in row} == {
        "prompt",
        "chosen",
        "rejected",
        "label",
        "group_id",
    } | PROVENANCE
    assert {(row["chosen_model"], row["label"]) for row in rows if row["chosen_model"] != row["rejected_model"]} == {
        ("aligned", 1.0)
    }
    assert {row["label"] for row in rows if row["chosen_model"] == row["rejected_model"]} == {0.5}
    assert len({row["group_id"] for row in rows}) == 2
    soft = f"{place}/votes/{next(row for row in asked(api, labeling_id, 'zoe', 20))['question']}"
    api.client.put(soft, params={"annotator": "zoe"}, json={"choice": "left"})
    again = api.client.post(f"{place}/dataset", json={"both_bad": "tie"}).json()
    assert again["provenance"]["num_votes"] == made["provenance"]["num_votes"] + 2
    assert again["sha256"] != made["sha256"]


def test_two_models_are_compared_blind_and_the_reports_tell_who_won(api: Api) -> None:
    job_id, candidates_id = api.new_job(), candidates_of(api)
    api.run(job_id)
    labeling_id = created(api, candidates_id, between=["base", "aligned"], report_of=job_id, repeated=0.25)
    assert api.client.get(f"/v1/labelings/{labeling_id}").json()["num_pairs"] == 4
    assert api.client.get(f"/v1/jobs/{job_id}/report").json()["human"] == []
    drawn = drawn_by(api, candidates_id)
    assert all(
        {drawn[one[side]["image_id"]] for side in ("left", "right")} == {"base", "aligned"}
        for one in asked(api, labeling_id, limit=20)
    )
    answer_all(api, labeling_id, drawn, "aligned")
    (told,) = api.client.get(f"/v1/jobs/{job_id}/report").json()["human"]
    assert (told["base"], told["policy"], told["won"], told["num_pairs"]) == ("base", "aligned", 4, 4)
    assert told["win_rate"] == 1.0
    assert told["wilson_interval"]["low"] == pytest.approx(0.5101, abs=1e-4)  # 4 / (4 + z^2)
    assert api.client.get(f"/v1/labelings/{labeling_id}/results").json()["human"] == told


def test_the_page_of_a_report_tells_what_people_said_until_it_is_read(api: Api) -> None:
    job_id, candidates_id = api.new_job(), candidates_of(api)
    api.run(job_id)
    address = f"/v1/jobs/{job_id}/report.html"
    labeling_id = created(api, candidates_id, between=["base", "aligned"], report_of=job_id, repeated=0)
    before = api.client.get(address)
    assert "people" not in before.text
    drawn = drawn_by(api, candidates_id)
    answer_all(api, labeling_id, drawn, "aligned")
    after = api.client.get(address, headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200, "what was read before is no longer the page"
    assert after.headers["content-security-policy"] == before.headers["content-security-policy"]
    assert "aligned against base" in after.text
    assert "100.0 %" in after.text
    assert "51.0 % to 100.0 %" in after.text  # 4 / (4 + z^2)
    head = api.client.head(address)
    assert (head.headers["etag"], int(head.headers["content-length"])) == (after.headers["etag"], len(after.content))
    assert api.client.get(address, headers={"If-None-Match": after.headers["etag"]}).status_code == 304
    assert api.client.get(address, headers={"Range": "bytes=5-60"}).content == after.content[5:61]


@pytest.mark.parametrize("page", [b"<header></header><main><p>proof</p></main>", b"<title>proof</title>"])
def test_what_people_said_stands_first_in_a_page_and_is_text(page: bytes, api: Api) -> None:
    stored = api.keep("report.html", "pages/report.html", page)
    told = HumanComparison.model_validate(
        {
            "labeling_id": "lab_1",
            "base": "<b>base</b>",
            "policy": "aligned",
            "num_pairs": 2,
            "num_votes": 2,
            "num_annotators": 1,
            "won": 1,
            "lost": 1,
            "ties": 0,
            "win_rate": 0.5,
            "wilson_interval": {"low": 0.1, "high": 0.9, "confidence": 0.95},
        }
    )
    body = with_people(api.parts, stored, [told])
    whole = b"".join(body.open_range(0, body.size_bytes))
    assert body.sha256 == hashlib.sha256(whole).hexdigest() != stored.sha256
    assert b"aligned against &lt;b&gt;base&lt;/b&gt;" in whole
    assert whole.startswith(page.partition(b"<p>")[0])
    assert b"<p>proof" not in whole or whole.index(b"Judged by people") < whole.index(b"<p>proof")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"between": ["base", "nobody"]}, 422, "contender_not_found"),
        ({"between": ["base", "base"]}, 422, "value_error"),
        ({"report_of": "job_" + 26 * "0"}, 422, "value_error"),
        ({"between": ["base", "aligned"], "report_of": "job_" + 26 * "0"}, 404, "job_not_found"),
        ({"candidates_id": "cand_" + 26 * "0"}, 404, "candidates_not_found"),
        ({"num_pairs": 0}, 422, "greater_than_equal"),
    ],
)
def test_what_cannot_be_asked_is_refused(api: Api, body: dict[str, Any], status: int, code: str) -> None:
    answer = api.client.post("/v1/labelings", json={"candidates_id": candidates_of(api), **body})
    assert answer.status_code == status, answer.text
    assert code in [answer.json()["code"], *(one["code"] for one in answer.json()["errors"])]


def test_candidates_must_have_ended_have_pairs_and_stay_while_they_are_shown(api: Api) -> None:
    running = test_candidates.created(api)["id"]
    body = {"candidates_id": running}
    assert_problem(api.client.post("/v1/labelings", json=body), 409, "candidates_not_drawn")
    single = candidates_of(api, contenders=test_candidates.SPEC["contenders"][:1], seeds_per_prompt=1)
    assert_problem(api.client.post("/v1/labelings", json={"candidates_id": single}), 422, "invalid_request")
    candidates_id = candidates_of(api)
    labeling_id = created(api, candidates_id)
    assert_problem(api.client.delete(f"/v1/candidates/{candidates_id}"), 409, "candidates_in_use")
    gone = {"id": labeling_id, "object": "labeling", "deleted": True}
    assert api.client.delete(f"/v1/labelings/{labeling_id}").json() == gone
    assert api.client.delete(f"/v1/candidates/{candidates_id}").status_code == 200


def test_with_keys_the_key_judges_and_another_project_sees_nothing(new_api: NewApi) -> None:
    api = new_api(api_keys_required=True)
    project_id, headers = key_of(api, "owner")
    api.client.headers.update(headers)
    found = test_candidates.created(api)["id"]
    test_candidates.drawn(api, found, project_id)
    place = f"/v1/labelings/{created(api, found)}"
    told = api.client.get(f"{place}/next").json()
    assert told["progress"]["annotator"].startswith("key_")
    assert_problem(api.client.get(f"{place}/next", params={"annotator": "me"}), 422, "invalid_request")
    stranger = key_of(api, "another")[1]
    for path in (place, f"{place}/next", f"{place}/results"):
        assert_problem(api.client.get(path, headers=stranger), 404, "labeling_not_found")
    vote = {"choice": "left"}
    assert_problem(api.client.put(f"{place}/votes/0", json=vote, headers=stranger), 404, "labeling_not_found")
    assert_problem(api.client.post(f"{place}/dataset", json={}, headers=stranger), 404, "labeling_not_found")
