"""The pages for labeling as a browser without scripts has them: draw, ask, judge, undo, agree, make a data set, compare blind."""

import html
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from service.store import projects
from service.store.projects import DEFAULT_PROJECT_ID
from service.web import label_page
from tests.service.api.test_auth import key_of
from tests.service.api.test_candidates import drawn
from tests.service.api.test_labelings import answer_all, drawn_by
from tests.service.api.world import Api
from tests.service.web.test_pages import HOSTILE, INLINE, client_of, sign_in

DRAW = {"model": "shapes", "prompts": f"a big red circle\n\n  {HOSTILE}\n", "seeds_per_prompt": "2", "name": HOSTILE}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    return client_of(tmp_path_factory.mktemp("label"))


@pytest.fixture(scope="module")
def api(client: TestClient) -> Api:
    return Api(client)


def sent(client: TestClient, path: str, **fields: str) -> Response:
    return client.post(path, data=fields)


def made(client: TestClient, path: str, **fields: str) -> str:
    """Where the browser is led after the form was taken."""
    answer = sent(client, path, **fields)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def draw(api: Api, **changes: str) -> str:
    """Id of candidates that the form has had drawn."""
    candidates_id = made(api.client, "/label/draw", **{**DRAW, **changes}).rpartition("/")[2]
    drawn(api, candidates_id)
    return candidates_id


def label(api: Api, candidates_id: str | None = None, **fields: str) -> str:
    """Address of a labeling that the form has made: of two pairs, when nothing else is asked for."""
    return made(api.client, f"/label/draws/{candidates_id or draw(api)}", **{"repeated": "0", **fields})


def hidden(page: str) -> dict[str, str]:
    """What the form of a question sends beside the choice."""
    form = page.partition('id="judge-form"')[2].partition("</form>")[0]
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form))


def vote(client: TestClient, place: str, choice: str, fields: dict[str, str] | None = None) -> str:
    return made(client, f"{place}/votes", choice=choice, **(fields or hidden(client.get(place).text)))


def votes_of(client: TestClient, place: str) -> int:
    return client.get(f"/v1/labelings/{place.rpartition('/')[2]}").json()["answered"]


def test_a_form_has_pictures_drawn_with_what_was_typed(api: Api) -> None:
    found = api.client.get(f"/v1/candidates/{draw(api, guidance_scale='3.5')}").json()
    assert found["spec"]["prompts"] == ["a big red circle", HOSTILE]
    assert [one["name"] for one in found["spec"]["contenders"]] == ["shapes"]
    assert found["spec"]["seeds_per_prompt"] == 2
    assert found["spec"]["sampling"]["guidance_scale"] == 3.5
    assert found["spec"]["sampling"]["num_inference_steps"] == 20


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seeds_per_prompt": "many"}, "seeds_per_prompt"),
        ({"seeds_per_prompt": "0"}, "seeds_per_prompt"),
        ({"guidance_scale": "nan"}, "guidance_scale"),
        ({"prompts": ""}, "prompts"),
        ({"prompts": "", "prompt_set": "ps_00000000000000000000000000"}, "prompt_set"),
        ({"prompt_set": "ps_00000000000000000000000000"}, "prompt_set"),
        ({"against": "ckpt_00000000000000000000000000"}, "against"),
        ({"model": "nothing/of-the-kind"}, "model"),
    ],
)
def test_what_is_wrong_with_a_draw_is_told_at_its_field_and_nothing_typed_is_lost(
    changes: dict[str, str], field: str, client: TestClient
) -> None:
    typed = {**DRAW, **changes}
    answer = sent(client, "/label/draw", **typed, action="draw")
    assert answer.status_code == 422
    assert re.search(rf'name="{field}"[^>]*aria-invalid="true" aria-describedby="{field}-wrong', answer.text), field
    assert f'id="{field}-wrong"' in answer.text
    if "prompts" not in changes:
        assert HOSTILE in html.unescape(answer.text)
    checked = sent(client, "/label/draw", **typed, action="check")
    assert (checked.status_code, f'id="{field}-wrong"' in checked.text) == (200, True)


def test_a_draw_is_checked_before_it_starts(client: TestClient) -> None:
    num = len(client.get("/v1/candidates", params={"limit": 100}).json()["data"])
    page = sent(client, "/label/draw", **DRAW, action="check").text
    assert "This can be drawn" in page
    assert re.search(r"Pictures</dt><dd[^>]*>4<", page)
    assert len(client.get("/v1/candidates", params={"limit": 100}).json()["data"]) == num


def test_a_button_that_is_pressed_twice_draws_once(client: TestClient) -> None:
    (once,) = re.findall(r'name="once" value="(\w+)"', client.get("/label/draw").text)
    first, second = (made(client, "/label/draw", **DRAW, once=once) for _ in range(2))
    assert first == second


def test_a_form_that_is_sent_again_with_something_else_says_so_and_can_then_be_sent(client: TestClient) -> None:
    (once,) = re.findall(r'name="once" value="(\w+)"', client.get("/label/draw").text)
    first = made(client, "/label/draw", **DRAW, once=once)
    other = {**DRAW, "prompts": "a blue square"}
    page = sent(client, "/label/draw", **other, once=once)
    assert page.status_code == 422
    assert "This form was sent before" in page.text
    assert "Idempotency" not in page.text
    (anew,) = re.findall(r'name="once" value="(\w+)"', page.text)
    assert made(client, "/label/draw", **other, once=anew) != first


def test_the_list_has_labelings_with_progress_and_draws_but_not_those_of_the_playground(api: Api) -> None:
    place = label(api)
    vote(api.client, place, "left")
    tried = {"prompt": "a red circle", "contenders": [{"name": "a", "model": "shapes"}]}
    tried_id = api.client.post("/v1/playground", json=tried).json()["id"]
    waiting = made(api.client, "/label/draw", **DRAW).rpartition("/")[2]
    page = api.client.get("/label").text
    row = page.partition(f'id="{place.rpartition("/")[2]}"')[2].partition("</tr>")[0]
    assert "1/2" in row
    assert f'href="/label/draws/{waiting}"' in page
    assert "Ask about them" not in page.partition(f'id="{waiting}"')[2].partition("</tr>")[0]
    assert tried_id not in page
    assert 'href="/playground#before"' in page


def test_pictures_behind_more_plays_than_a_page_has_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_page, "LOOKED_AT", 3)
    api = Api(client_of(tmp_path))
    old = made(api.client, "/label/draw", **DRAW).rpartition("/")[2]
    tried = {"prompt": "a red circle", "contenders": [{"name": "a", "model": "shapes"}]}
    for _ in range(3):
        api.client.post("/v1/playground", json=tried).raise_for_status()
    page = api.client.get("/label").text
    assert "Nothing to judge yet" not in page
    (older,) = re.findall(r'href="(\?drawn_after=\w+)"', page)
    assert f'id="{old}"' in api.client.get(f"/label{older}").text


def test_a_draw_is_followed_and_can_be_stopped(api: Api) -> None:
    place = made(api.client, "/label/draw", **DRAW)
    page = api.client.get(place).text
    assert 'hx-trigger="every 2s"' in page
    assert "ask-form" not in page
    early = sent(api.client, place, repeated="10")
    assert early.status_code == 409
    assert made(api.client, f"{place}/cancel") == place
    assert "Nothing was drawn" in api.client.get(place).text


@pytest.mark.parametrize(("fields", "wrong"), [({"num_pairs": "0"}, "num_pairs"), ({"repeated": "200"}, "repeated")])
def test_what_is_wrong_with_a_labeling_is_told_at_its_field(api: Api, fields: dict[str, str], wrong: str) -> None:
    answer = sent(api.client, f"/label/draws/{draw(api)}", **fields)
    assert answer.status_code == 422
    assert f'id="{wrong}-wrong"' in answer.text
    assert f'value="{fields[wrong]}"' in answer.text


def test_questions_are_answered_one_by_one_and_taken_back(api: Api) -> None:
    client, place = api.client, label(api)
    first = hidden(client.get(place).text)
    assert "last" not in first
    assert vote(client, place, "left") == place
    second = hidden(client.get(place).text)
    assert (second["last"], second["question"] != first["question"]) == (first["question"], True)
    assert vote(client, place, "undo") == place
    assert hidden(client.get(place).text)["question"] == first["question"]
    for choice in ("both_bad", "skip"):
        vote(client, place, choice)
    assert client.get(place).headers["location"] == f"{place}/results"
    page = client.get(f"{place}/results").text
    assert "All answered" in page
    assert "1 of 2 pairs judged by anybody" in page
    assert sent(client, f"{place}/votes", choice="best", question="0").status_code == 422
    assert sent(client, f"{place}/votes", choice="left", question="2").status_code == 404


def test_two_tabs_that_vote_twice_lose_and_double_nothing(api: Api) -> None:
    client, place = api.client, label(api)
    tabs = [hidden(client.get(place).text) for _ in range(2)]
    assert tabs[0] == tabs[1]
    for fields in (*tabs, *tabs):
        vote(client, place, "left", fields)
    assert votes_of(client, place) == 1
    old = hidden(client.get(place).text)
    vote(client, place, "tie")
    for _ in range(2):
        vote(client, place, "undo", {**old, "last": old["question"]})
    assert votes_of(client, place) == 1, "what was taken back twice was taken back once"


def test_people_judge_under_their_names_and_agree_or_not(api: Api) -> None:
    client, place = api.client, label(api)
    refused = sent(client, f"{place}/name", annotator="two words")
    assert refused.status_code == 422
    assert 'id="annotator-wrong"' in refused.text
    assert made(client, f"{place}/name", annotator="ada") == place
    try:
        assert "Judging as ada" in client.get(place).text
        vote(client, place, "left")
        assert "Judging as bob" in client.get(f"{place}?annotator=bob").text
        fields = hidden(client.get(f"{place}?annotator=bob").text)
        assert vote(client, place, "right", fields) == f"{place}?annotator=bob"
        page = client.get(f"{place}/results").text
        assert "ada and bob" in page
        answered = {
            one["annotator"]: one["answered"]
            for one in client.get(f"/v1/labelings/{place[7:]}/results").json()["annotators"]
        }
        assert answered == {"ada": 1, "bob": 1}
    finally:
        client.cookies.clear()


def test_answers_become_a_data_set_and_then_a_job(api: Api) -> None:
    client, place = api.client, label(api)
    assert "dataset-form" not in client.get(f"{place}/results").text
    nothing = sent(client, f"{place}/dataset", name="too early")
    assert (nothing.status_code, "nobody has judged" in nothing.text) == (409, True)
    vote(client, place, "left")
    page = client.get(f"{place}/results").text
    (once,) = re.findall(r'name="once" value="(\w+)"', page)
    first, second = (made(client, f"{place}/dataset", name="taste", both_bad="tie", once=once) for _ in range(2))
    assert first == second
    dataset_id = first.partition("dataset=")[2]
    found = client.get(f"/v1/datasets/{dataset_id}").json()
    assert (found["name"], found["provenance"]["both_bad"]) == ("taste", "tie")
    page = client.get(first).text
    assert "checking" in page
    assert "/jobs/new" not in page.partition('id="made"')[2], "not before a worker has looked at it"
    ready = api.ready_dataset()
    assert f'href="/jobs/new?dataset={ready}"' in client.get(f"{place}/results?dataset={ready}").text


def test_a_checkpoint_is_compared_blind_and_its_job_tells_who_won(api: Api) -> None:
    client = api.client
    job_id = api.new_job()
    api.run(job_id)
    checkpoint_id = api.checkpoint_id(job_id)
    address = f"/label/draw?job={job_id}&amp;checkpoint={checkpoint_id}"
    assert address in client.get(f"/jobs/{job_id}").text
    page = client.get(html.unescape(address)).text
    assert f'<option value="{checkpoint_id}" selected>' in page
    prompts = html.unescape(re.findall(r'<textarea id="prompts"[^>]*>\n?(.*?)</textarea>', page, re.DOTALL)[0])
    report = client.get(f"/v1/jobs/{job_id}/report").json()
    assert prompts.splitlines() == list(dict.fromkeys(one["prompt"] for one in report["images"]))
    candidates_id = draw(api, against="shapes", report_of=job_id, prompts="a red circle\na blue star")
    page = client.get(f"/label/draws/{candidates_id}").text
    assert '<option value="0-1" selected>base and aligned' in page
    place = label(api, candidates_id, between="0-1", report_of=job_id)
    labeling_id = place.rpartition("/")[2]
    assert client.get(f"/v1/labelings/{labeling_id}").json()["between"] == ["base", "aligned"]
    assert "Judged blind" not in client.get(f"/jobs/{job_id}").text
    answer_all(api, labeling_id, drawn_by(api, candidates_id), "aligned")
    for told in (f"/jobs/{job_id}", f"{place}/results"):
        page = client.get(told).text
        assert "aligned against base" in page
        assert "100.0 %" in page
        assert "[51.0 %, 100.0 %]" in page  # 4 / (4 + z^2)


def test_what_users_wrote_stays_text_on_every_page(api: Api) -> None:
    client, candidates_id = api.client, draw(api)
    place = label(api, candidates_id, name=HOSTILE)
    seen = set()
    for path in ("/label", "/label/draw", f"/label/draws/{candidates_id}", place, f"{place}/results"):
        page = client.get(path)
        assert page.status_code == 200, path
        assert HOSTILE not in page.text, path
        assert "<img src=x" not in page.text, path
        assert not INLINE.search(page.text), path
        assert "unsafe" not in page.headers["content-security-policy"]
    for _ in range(2):
        seen.update(re.findall(r'id="judge-prompt">(.*?)</q>', client.get(place).text))
        vote(client, place, "skip")
    assert html.unescape("".join(seen)).count("<script>") == 1, "the prompt that is HTML was asked about, as text"


def test_a_form_of_another_site_changes_nothing(api: Api) -> None:
    client, place = api.client, label(api)
    fields = hidden(client.get(place).text)
    elsewhere = {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
    for path in (f"{place}/votes", f"{place}/name", f"{place}/dataset", "/label/draw"):
        answer = client.post(path, data={**DRAW, **fields, "choice": "left"}, headers=elsewhere)
        assert answer.status_code == 403, path
    assert votes_of(client, place) == 0


def test_with_keys_the_key_judges_and_another_project_finds_nothing(tmp_path: Path) -> None:
    client = client_of(tmp_path, keys=True)
    api = Api(client)
    key, _ = projects.create_key(api.parts.store, DEFAULT_PROJECT_ID, "label")
    assert client.get("/label").headers["location"] == "/sign-in?next=%2Flabel"
    sign_in(client, key)
    (csrf, *_) = re.findall(r'name="csrf" value="(\w+)"', client.get("/label").text)
    assert sent(client, "/label/draw", **DRAW).status_code == 403, "a form without its token"
    candidates_id = made(client, "/label/draw", **DRAW, csrf=csrf).rpartition("/")[2]
    drawn(api, candidates_id)
    place = made(client, f"/label/draws/{candidates_id}", repeated="0", csrf=csrf)
    page = client.get(place).text
    assert "Judging as" not in page, "nobody takes another's name"
    fields = hidden(page)
    assert fields["annotator"].startswith("key_")
    assert sent(client, f"{place}/votes", **{**fields, "choice": "left", "csrf": "0" * 64}).status_code == 403
    assert vote(client, place, "left") == place
    assert "1/2" in client.get("/label").text
    stranger = TestClient(client.app, base_url="http://localhost", headers=client.headers, follow_redirects=False)
    strange_key = key_of(api, "another")[1]["Authorization"].removeprefix("Bearer ")
    sign_in(stranger, strange_key)
    (csrf, *_) = re.findall(r'name="csrf" value="(\w+)"', stranger.get("/label").text)
    assert "first" not in stranger.get("/label").text
    for path in (place, f"{place}/results", f"/label/draws/{candidates_id}", f"{place}/results?dataset=ds_{26 * '0'}"):
        assert stranger.get(path).status_code == 404, path
    for path in (f"{place}/votes", f"{place}/dataset", f"/label/draws/{candidates_id}"):
        assert sent(stranger, path, **{**fields, "choice": "left", "csrf": csrf}).status_code == 404, path
