"""The page of models: champions with their proofs, the catalog, how names have moved, and new jobs from each."""

import html
import re
from pathlib import Path

import pytest

from service.store import leases
from tests.service.api.test_aliases import finished, promote, reported
from tests.service.api.world import Api
from tests.service.web.test_pages import HOSTILE, INLINE, client_of, form_of, spec_in


@pytest.fixture
def api(tmp_path: Path) -> Api:
    return Api(client_of(tmp_path))


def card_of(page: str, alias: str) -> str:
    return page.partition(f'id="name-{alias}"')[2].partition("</article>")[0]


def test_where_nothing_has_a_name_the_page_says_how_it_gets_one(api: Api) -> None:
    page = api.client.get("/models").text
    assert "attune promote" in page
    assert "None has moved yet" in page
    assert 'href="/jobs/new?model=shapes"' in page


def test_a_champion_is_shown_with_the_report_that_earned_it_and_begins_a_job(api: Api) -> None:
    job_id, checkpoint_id = finished(api)
    promote(api, checkpoint_id)
    page = api.client.get("/models").text
    card = card_of(page, "champion")
    assert "+0.17" in card
    assert "[+0.15, +0.19]" in card
    assert f'href="/v1/jobs/{job_id}/report.html"' in card
    assert api.client.get(f"/v1/jobs/{job_id}/report.html").status_code == 200
    catalog = page.partition('id="catalog-title"')[2].partition("</table>")[0]
    assert "@champion" not in catalog
    (address,) = re.findall(r'href="(/jobs/new\?model=[^"]+)"', card)
    form = api.client.get(html.unescape(address)).text
    assert "This can run" in form
    assert spec_in(form)["model"] == {"type": "alias", "name": "champion"}
    started = api.client.post("/jobs/new", data={**form_of(form), "name": "on it", "action": "start"})
    job = api.client.get(f"/v1{started.headers['location']}").json()
    assert job["spec"]["start"]["lora"]["id"] == checkpoint_id
    (play,) = re.findall(r'href="(/playground\?against=[^"]+)"', card)
    assert "selected>champion<" in api.client.get(html.unescape(play)).text


def test_a_jobs_page_makes_its_result_the_champion_where_the_report_earned_it(api: Api) -> None:
    job_id = api.new_job()
    attempt = api.claim(job_id)
    api.save_checkpoint(job_id, attempt, 4, result_step=4)
    api.evaluate(job_id, attempt, 4)
    leases.finish(api.parts.store, job_id, attempt, "succeeded")
    checkpoint_id = api.checkpoint_id(job_id)
    page = api.client.get(f"/jobs/{job_id}").text
    form = page.partition('action="/models"')[2].partition("</form>")[0]
    assert f'name="checkpoint_id" value="{checkpoint_id}"' in form
    answer = api.client.post("/models", data={"checkpoint_id": checkpoint_id})
    assert (answer.status_code, answer.headers["location"]) == (303, "/models")
    assert api.client.get("/v1/aliases/champion").json()["checkpoint_id"] == checkpoint_id
    page = api.client.get(f"/jobs/{job_id}").text
    assert ("It is the champion" in page, 'action="/models"' in page) == (True, False)
    card = card_of(api.client.get("/models").text, "champion")
    (take_away,) = re.findall(r'action="(/delete/aliases/[^"]+)"', card)
    gone = api.client.post(take_away)
    assert (gone.status_code, gone.headers["location"]) == (303, "/models")
    assert api.client.get("/v1/aliases/champion").status_code == 404
    assert "It is the champion" not in api.client.get(f"/jobs/{job_id}").text
    reported(api, job_id, low=-0.01, high=0.04, verdict="not_improved")
    assert 'action="/models"' not in api.client.get(f"/jobs/{job_id}").text
    refused = api.client.post("/models", data={"checkpoint_id": checkpoint_id}, headers={"Accept": "text/html"})
    assert (refused.status_code, "does not show that it is better" in refused.text) == (409, True)


def test_a_fork_that_is_pressed_twice_is_one_job_and_one_of_more_steps_another(api: Api) -> None:
    job_id = api.new_job()
    attempt = api.claim(job_id)
    api.save_checkpoint(job_id, attempt, 4, result_step=4)
    leases.finish(api.parts.store, job_id, attempt, "succeeded")
    place = f"/jobs/{job_id}/checkpoints/{api.checkpoint_id(job_id)}/fork"
    form = api.client.get(f"/jobs/{job_id}").text.partition(f'action="{place}"')[2].partition("</form>")[0]
    (once,) = re.findall(r'name="once" value="(\w+)"', form)
    asked = [api.client.post(place, data={"steps": steps, "once": once}) for steps in ("20", "20", "30")]
    assert [one.status_code for one in asked] == [303, 303, 303]
    first, again, longer = (one.headers["location"] for one in asked)
    assert first == again != longer


def test_the_history_has_every_move_and_of_one_name_alone_when_asked(api: Api) -> None:
    job_id, checkpoint_id = finished(api)
    promote(api, checkpoint_id, alias="candidate")
    reported(api, job_id, low=-0.01, high=0.04, verdict="not_improved")
    promote(api, checkpoint_id, force=True, reason=HOSTILE)
    api.client.delete("/v1/aliases/champion")
    page = api.client.get("/models").text
    moves = [one["id"] for one in api.client.get("/v1/promotions").json()["data"]]
    assert re.findall(r'<tr id="(prm_\w+)"', page) == moves
    assert len(moves) == 3
    assert "the name was taken away" in page
    assert card_of(page, "champion") == ""
    only = api.client.get("/models?alias=candidate").text
    assert re.findall(r'<tr id="(prm_\w+)"', only) == moves[-1:]
    assert HOSTILE not in page
    assert html.escape("<script>alert(") in page
    assert "forced" in page
    assert not INLINE.search(page)


def test_a_long_history_is_read_page_by_page(api: Api) -> None:
    _, checkpoint_id = finished(api)
    for _ in range(26):
        promote(api, checkpoint_id, alias="candidate")
    first = api.client.get("/models?alias=candidate").text
    (older,) = re.findall(r'rel="next" href="([^"]+)"', first)
    second = api.client.get(html.unescape(older)).text
    rows = [re.findall(r'<tr id="(prm_\w+)"', page) for page in (first, second)]
    assert [len(one) for one in rows] == [25, 1]
    assert not set(rows[0]) & set(rows[1])


def test_a_name_that_there_is_not_is_told_by_the_form_of_a_new_job(api: Api) -> None:
    page = api.client.get("/jobs/new", params={"model": "@nobody"}).text
    assert "This can run" not in page
