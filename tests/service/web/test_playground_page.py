"""The playground as a browser without scripts has it: asked, drawn, refused, and off where the operator has it off."""

import html
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.store import projects
from service.store.projects import DEFAULT_PROJECT_ID
from tests.service.api.test_candidates import drawn
from tests.service.api.world import Api
from tests.service.web.test_label_pages import made, sent
from tests.service.web.test_pages import HOSTILE, INLINE, client_of, sign_in

ASKED = {"prompt": "a red circle", "seed": "7", "model": "shapes", "guidance_scale": "3.5"}
REFRESH = '<noscript><meta http-equiv="refresh"'


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    return client_of(tmp_path_factory.mktemp("playground"))


@pytest.fixture(scope="module")
def api(client: TestClient) -> Api:
    return Api(client)


@pytest.fixture(scope="module")
def checkpoint_id(api: Api) -> str:
    """Of a job that is called as HTML."""
    job_id = api.new_job(name=HOSTILE)
    api.run(job_id)
    return api.checkpoint_id(job_id)


def chosen(page: str, field: str) -> str:
    """What the page's form has in a field."""
    if area := re.search(rf'<textarea id="{field}"[^>]*>\n(.*?)</textarea>', page, re.DOTALL):
        return html.unescape(area[1])
    if select := re.search(rf'<select id="{field}".*?</select>', page, re.DOTALL):
        return next(iter(re.findall(r'<option value="([^"]*)" selected', select[0])), "")
    (value,) = re.findall(rf'<input id="{field}"[^>]* value="([^"]*)"', page)
    return value


def test_what_was_asked_is_drawn_before_all_jobs_and_shown_beside_what_was_typed(api: Api, checkpoint_id: str) -> None:
    client = api.client
    asked = {**ASKED, "prompt": HOSTILE, "against": checkpoint_id}
    place = made(client, "/playground", **asked)
    found = client.get(f"/v1/candidates/{place.rpartition('/')[2]}").json()
    assert (found["spec"]["prompts"], found["spec"]["seeds"]) == ([HOSTILE], [7])
    assert found["spec"]["sampling"]["guidance_scale"] == 3.5
    assert [one["lora"] and one["lora"]["id"] for one in found["spec"]["contenders"]] == [None, checkpoint_id]
    waiting = client.get(place).text
    assert 'hx-trigger="every 1s"' in waiting
    assert REFRESH in waiting
    assert waiting.count("Not here yet") == 2
    drawn(api, found["id"])
    page = client.get(place).text
    assert 'hx-trigger="every 1s"' not in page
    assert REFRESH not in page
    images = client.get(f"/v1/candidates/{found['id']}/images").json()["data"]
    assert re.findall(r'<img src="([^"]+)"', page) == [one["image_url"] for one in images]
    assert {name: chosen(page, name) for name in asked} == asked
    assert [html.unescape(one) for one in re.findall(r"<figcaption>(.*?)</figcaption>", page)] == [
        "shapes",
        f"{HOSTILE}, step 4",
    ]


def test_what_users_wrote_stays_text(api: Api, checkpoint_id: str) -> None:
    place = made(api.client, "/playground", **ASKED | {"prompt": HOSTILE, "against": checkpoint_id})
    drawn(api, place.rpartition("/")[2])
    refused = sent(api.client, "/playground", **ASKED | {"prompt": HOSTILE, "seed": HOSTILE[:50]})
    for page in (api.client.get(place), api.client.get("/playground", params={"prompt": HOSTILE}), refused):
        assert HOSTILE not in page.text
        assert "<img src=x" not in page.text
        assert not INLINE.search(page.text)
        assert "unsafe" not in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "a" * 2001}, "prompt"),
        ({"seed": "many"}, "seed"),
        ({"seed": str(2**32)}, "seed"),
        ({"model": "nothing/of-the-kind"}, "model"),
        ({"model": ""}, "model"),
        ({"against": f"ckpt_{26 * '0'}"}, "against"),
        ({"against": "shapes"}, "against"),
        ({"num_inference_steps": "0"}, "num_inference_steps"),
        ({"guidance_scale": "nan"}, "guidance_scale"),
    ],
)
def test_what_is_wrong_is_told_at_its_field_and_nothing_typed_is_lost(
    changes: dict[str, str], field: str, client: TestClient
) -> None:
    typed = {**ASKED, "num_inference_steps": "12", **changes}
    answer = sent(client, "/playground", **typed)
    assert answer.status_code == 422
    assert re.search(rf'name="{field}"[^>]*aria-invalid="true" aria-describedby="{field}-wrong', answer.text), field
    assert f'id="{field}-wrong"' in answer.text
    kept = {name: value for name, value in typed.items() if (name, value) != ("model", "")}
    assert {name: chosen(answer.text, name) for name in kept} == kept


def test_the_next_seed_is_drawn_by_a_button_and_a_draw_that_is_sent_twice_is_one(client: TestClient) -> None:
    (once,) = re.findall(r'name="once" value="(\w+)"', client.get("/playground").text)
    first, second = (made(client, "/playground", **ASKED, action="next_seed", once=once) for _ in range(2))
    assert first == second
    assert chosen(client.get(first).text, "seed") == "8"
    last = made(client, "/playground", **ASKED | {"seed": str(2**32 - 1)}, action="next_seed")
    assert chosen(client.get(last).text, "seed") == "0"


def test_a_draw_can_be_stopped(client: TestClient) -> None:
    place = made(client, "/playground", **ASKED)
    assert f'action="{place}/cancel"' in client.get(place).text
    assert made(client, f"{place}/cancel") == place
    page = client.get(place).text
    assert "Nothing was drawn" in page
    assert f'action="{place}/cancel"' not in page


def test_a_job_fills_the_form_in_with_its_model_a_checkpoint_and_how_its_report_draws(
    api: Api, checkpoint_id: str
) -> None:
    job_id = api.client.get(f"/v1/checkpoints/{checkpoint_id}").json()["job_id"]
    address = f"/playground?job={job_id}&checkpoint={checkpoint_id}&prompt=a+star&seed=5"
    page = api.client.get(address).text
    filled = {"prompt": "a star", "seed": "5", "model": "shapes", "against": checkpoint_id}
    assert {name: chosen(page, name) for name in filled} == filled
    evaluation = api.client.get(f"/v1/jobs/{job_id}").json()["spec"]["evaluation"]
    assert chosen(page, "num_inference_steps") == str(evaluation["num_inference_steps"])


def test_what_was_drawn_last_is_found_again_by_its_prompt(tmp_path: Path) -> None:
    client = client_of(tmp_path)
    assert "Drawn last" not in client.get("/playground").text
    first = made(client, "/playground", **ASKED | {"prompt": f" two\n lines {'x' * 200}"})
    others = [made(client, "/playground", **ASKED | {"prompt": f"star {number}"}) for number in range(8)]
    page = client.get(others[-1]).text
    listed = re.findall(r'<li><a href="(/playground/\w+)"(?: aria-current="true")?>(.*?)</a>', page)
    assert listed == [(place, f"star {number}") for number, place in reversed(list(enumerate(others)))]
    (older,) = re.findall(r'href="(/playground\?drawn_after=\w+)#before"', page)
    assert f'<a href="{first}">two lines {90 * "x"}</a>' in client.get(older).text


def test_candidates_of_people_are_shown_where_questions_are_made_of_them(client: TestClient) -> None:
    spec = {"contenders": [{"name": "a", "model": "shapes"}], "prompts": ["one", "two"]}
    candidates_id = client.post("/v1/candidates", json={"spec": spec}).json()["id"]
    answer = client.get(f"/playground/{candidates_id}")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/label/draws/{candidates_id}")
    assert client.get(f"/playground/cand_{26 * '0'}").status_code == 404


@pytest.mark.parametrize(
    "other", [{}, {"prompts": ["one", "two"], "seeds": [1]}, {"prompts": ["one"], "seeds": [1, 2]}]
)
def test_candidates_that_only_say_they_are_of_the_playground_are_none_of_its(
    other: dict[str, object], client: TestClient
) -> None:
    spec = {"contenders": [{"name": "a", "model": "shapes"}], "prompts": ["one"], **other}
    body = {"spec": spec, "metadata": {"made_by": "playground"}}
    candidates_id = client.post("/v1/candidates", json=body).json()["id"]
    answer = client.get(f"/playground/{candidates_id}")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/label/draws/{candidates_id}")
    assert client.get(f"/label/draws/{candidates_id}").status_code == 200


def test_a_contender_that_no_field_can_name_keeps_its_own_name_and_its_field_is_empty(
    api: Api, checkpoint_id: str
) -> None:
    others = {
        "uploaded": {"lora": api.ready_weights()},
        "halved": {"lora": checkpoint_id, "strength": 0.5},
        "scaled": {"lora": checkpoint_id, "alpha": 2},
        "replaced": {"denoiser": api.ready_weights(holds="denoiser")},
    }
    for name, other in others.items():
        contenders = [{"name": name, "model": "shapes", **other}, {"name": "base", "model": "shapes"}]
        answer = api.client.post("/v1/playground", json={"prompt": "a star", "contenders": contenders})
        assert answer.status_code == 201, answer.text
        page = api.client.get(f"/playground/{answer.json()['id']}").text
        assert re.findall(r"<figcaption>(.*?)</figcaption>", page) == [name, "shapes"]
        assert (chosen(page, "model"), chosen(page, "against")) == ("", "shapes")
        assert re.search(r'<select id="model"[^>]*><option value="">', page), "or a browser chooses the first"


def test_a_form_of_another_site_draws_nothing(client: TestClient) -> None:
    elsewhere = {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
    assert client.post("/playground", data=ASKED, headers=elsewhere).status_code == 403


def test_where_it_is_off_the_page_says_so_and_how_the_operator_opens_it(tmp_path: Path) -> None:
    client = client_of(tmp_path, keys=True)
    key, _ = projects.create_key(Api(client).parts.store, DEFAULT_PROJECT_ID, "page")
    assert client.get("/playground").headers["location"] == "/sign-in?next=%2Fplayground"
    sign_in(client, key)
    page = client.get("/playground").text
    assert "ATTUNE_PLAYGROUND=true" in page
    assert "playground-form" not in page
    (csrf,) = re.findall(r'name="csrf" value="(\w+)"', page)
    assert sent(client, "/playground", **ASKED, csrf=csrf).status_code == 403
    assert client.get("/v1/candidates").json()["data"] == []
