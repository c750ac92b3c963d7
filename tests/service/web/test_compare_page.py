"""Jobs compared: reports side by side with intervals, curves over each other, what differs in the specs, and blind judgement."""

import html
import re
from typing import Any

import pytest

from alignment_core.events import RunCompleted
from service.api.schemas.runs import REPORT_EXAMPLE
from service.store import leases
from service.store.models import Report
from service.web.compare_page import are_alike, differences
from tests.service.api.test_candidates import drawn
from tests.service.api.test_labelings import answer_all, candidates_of, created, drawn_by
from tests.service.api.world import Api, run_started, step_completed
from tests.service.web.test_pages import HOSTILE, INLINE, client_of

STEPS = 4
INTERVAL = {"low": -0.02, "high": 0.04, "confidence": 0.95}
FOLLOWING = {
    **REPORT_EXAMPLE["rewards"][0],
    "name": "follows",
    "base_mean": 0.7,
    "policy_mean": 0.71,
    "gain": 0.01,
    "gain_interval": INTERVAL,
    "win_rate": 0.5,
}
LINE = re.compile(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', re.DOTALL)


def finish(api: Api, job_id: str) -> None:
    """A whole run, whose last checkpoint is its result."""
    attempt = api.claim(job_id)
    api.say(job_id, attempt, run_started(api.spec_of(job_id), STEPS), step_completed(STEPS, STEPS))
    api.save_checkpoint(job_id, attempt, STEPS, result_step=STEPS)
    api.evaluate(job_id, attempt, STEPS)
    api.say(job_id, attempt, RunCompleted(step=STEPS))
    leases.finish(api.parts.store, job_id, attempt, "succeeded")


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Api:
    return Api(client_of(tmp_path_factory.mktemp("compare")))


@pytest.fixture(scope="module")
def first(api: Api) -> str:
    job_id = api.new_job(name=HOSTILE)
    finish(api, job_id)
    return job_id


@pytest.fixture(scope="module")
def second(api: Api, first: str) -> str:
    """The same job with another beta, whose report says more, of other prompts."""
    spec = api.client.get(f"/v1/jobs/{first}").json()["spec"]
    job_id = api.new_job(name="higher beta", spec={**spec, "method": {**spec["method"], "beta": 123.0}})
    finish(api, job_id)
    report = {
        **REPORT_EXAMPLE,
        "step": STEPS,
        "verdict": "not_improved",
        "prompt_following": FOLLOWING,
        "diversity": {"base": 0.21, "policy": 0.2, "change_interval": INTERVAL},
        "drift": {"eps_dist": 0.0123, "by_timestep": [], "num_draws": 8, "relative_weight_change": None},
        "images": [{**image, "prompt": "another prompt"} for image in REPORT_EXAMPLE["images"]],
    }
    with api.parts.store.write() as session:
        session.get_one(Report, (job_id, STEPS)).report = report
    return job_id


def compared(api: Api, *job_ids: str) -> str:
    answer = api.client.get("/compare", params={"job": job_ids})
    assert answer.status_code == 200
    assert not INLINE.search(answer.text)
    assert HOSTILE not in answer.text
    return answer.text


def lines(page: str) -> dict[str, list[str]]:
    """The texts of the cells of each line, by what the line tells."""
    return {
        _text(name): [_text(cell) for cell in re.findall(r"<td.*?>(.*?)</td>", cells, re.DOTALL)]
        for name, cells in LINE.findall(page)
    }


def _text(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", markup)).split())


def test_reports_stand_side_by_side_with_their_intervals(api: Api, first: str, second: str) -> None:
    found = lines(compared(api, first, second))
    assert found["Verdict"] == ["improved", "not improved"]
    assert found["colorfulness: gain"] == ["+0.17 [+0.15, +0.19]"] * 2
    assert found["colorfulness: win rate"] == ["100.0 % [96.0 %, 100.0 %]"] * 2
    assert found["follows: gain"] == ["", "+0.01 [\N{MINUS SIGN}0.02, +0.04]"]
    assert found["follows: base, aligned"] == ["", "0.7, 0.71"]
    assert found["Diversity: base, aligned"] == ["0.21, 0.2", "0.21, 0.2 change [\N{MINUS SIGN}0.02, +0.04]"]
    assert found["Drift from the base"] == ["", "0.0123"]


def test_a_job_without_a_report_says_so_and_nobody_can_judge_it(api: Api, first: str) -> None:
    page = compared(api, first, api.new_job())
    assert lines(page)["Verdict"] == ["improved", "no report yet"]
    assert lines(page)["colorfulness: gain"] == ["+0.17 [+0.15, +0.19]", ""]
    assert "Judge blind" not in page
    assert "compare only roughly" not in page
    assert list(lines(compared(api, api.new_job()))) == ["State", "Method and model", "Verdict"]


def test_reports_of_other_prompts_are_told_apart(api: Api, first: str, second: str) -> None:
    assert "compare only roughly" in compared(api, first, second)
    assert are_alike([REPORT_EXAMPLE, REPORT_EXAMPLE])
    assert not are_alike([REPORT_EXAMPLE, {**REPORT_EXAMPLE, "guidance_scale": 1.0}])


def test_what_people_said_stands_beside_what_rewards_say(api: Api, first: str, second: str) -> None:
    candidates_id = candidates_of(api)
    labeling_id = created(api, candidates_id, between=["base", "aligned"], report_of=first, repeated=0)
    answer_all(api, labeling_id, drawn_by(api, candidates_id), "aligned")
    page = compared(api, first, second)
    assert lines(page)["Won by people's judgement"] == ["100.0 % [51.0 %, 100.0 %]", ""]
    assert f'href="/label/{labeling_id}/results"' in page


def test_the_results_of_every_two_jobs_can_be_judged_blind(api: Api, first: str, second: str) -> None:
    third = api.new_job()
    finish(api, third)
    page = compared(api, first, second, third)
    links = [html.unescape(one) for one in re.findall(r'href="(/label/draw\?[^"]+)"', page)]
    one, other, last = (api.checkpoint_id(job_id) for job_id in (first, second, third))
    assert links == [f"/label/draw?model={a}&against={b}" for a, b in ((one, other), (one, last), (other, last))]
    form = api.client.get(links[0]).text
    assert re.findall(r'<option value="(\w+)" selected', form) == [one, other]
    assert prompts_in(form) == ["a big red circle on the left", "another prompt"], "they share none: those of both"
    form = api.client.get(links[1]).text
    assert prompts_in(form) == ["a big red circle on the left"], "both were judged by it, and neither was trained on it"


def test_who_won_of_two_checkpoints_is_told_by_the_report_of_the_second(api: Api) -> None:
    jobs = [api.new_job(), api.new_job()]
    for job_id in jobs:
        api.run(job_id)
    one, other = map(api.checkpoint_id, jobs)
    client = api.client
    form = client.get("/label/draw", params={"model": one, "against": other}).text
    (report_of,) = re.findall(r'name="report_of" value="(\w*)"', form)
    fields = {"model": one, "against": other, "report_of": report_of, "prompts": "a\nb", "seeds_per_prompt": "1"}
    candidates_id = client.post("/label/draw", data=fields).headers["location"].rpartition("/")[2]
    drawn(api, candidates_id)
    asked = client.get(f"/label/draws/{candidates_id}").text
    assert f'<option value="0-1" selected>{one} and {other} of the same noise' in asked
    fields = {"between": "0-1", "report_of": report_of, "repeated": "0"}
    labeling_id = client.post(f"/label/draws/{candidates_id}", data=fields).headers["location"].rpartition("/")[2]
    answer_all(api, labeling_id, drawn_by(api, candidates_id), other)
    reports = [client.get(f"/v1/jobs/{job_id}/report").json()["human"] for job_id in jobs]
    assert reports[0] == []
    (told,) = reports[1]
    assert (told["base"], told["policy"], told["win_rate"]) == (one, other, 1.0)
    assert told["wilson_interval"]["high"] == 1.0
    assert f"{other} against {one}" in client.get(f"/jobs/{jobs[1]}").text


def prompts_in(form: str) -> list[str]:
    (text,) = re.findall(r'<textarea id="prompts"[^>]*>\n?(.*?)</textarea>', form, re.DOTALL)
    return html.unescape(text).splitlines()


def test_curves_of_all_jobs_are_drawn_over_each_other(api: Api, first: str, second: str) -> None:
    (urls,) = re.findall(r'data-urls="([^"]+)"', compared(api, first, second))
    answers = [api.client.get(url).json()["data"] for url in html.unescape(urls).split(" ")]
    assert [bool(points) for points in answers] == [True, True]


def test_of_specs_only_what_differs_is_shown(api: Api, first: str, second: str) -> None:
    page = compared(api, first, second)
    told = page[page.index('id="specs-title"') :]
    beta = str(api.client.get(f"/v1/jobs/{first}").json()["spec"]["method"]["beta"])
    assert lines(told) == {"method.beta": [beta, "123.0"]}
    assert "they are the same" in compared(api, first)


@pytest.mark.parametrize(
    ("specs", "told"),
    [
        ([{"a": 1}, {"a": 1}], []),
        ([{"a": {"b": 1, "c": [1]}}, {"a": {"b": 1, "c": [2]}}], [("a.c", ["[1]", "[2]"])]),
        ([{"a": None, "b": 1}, {"b": 1}], [("a", ["null", ""])]),
        ([{"a": {}}, {"a": {"b": "x"}}], [("a", ["{}", ""]), ("a.b", ["", "x"])]),
    ],
)
def test_differences_are_told_by_field(specs: list[dict[str, Any]], told: list[tuple[str, list[str]]]) -> None:
    assert differences(specs) == told


def test_no_more_jobs_are_compared_than_fit(api: Api, first: str) -> None:
    assert api.client.get("/compare", params={"job": [first] * 7}).status_code == 422
    assert api.client.get("/compare", params={"job": "job_00000000000000000000000000"}).status_code == 404
