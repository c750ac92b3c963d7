"""Champion, candidate and other names: earned by a report or forced with a reason, and what jobs begin from."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from alignment_core.spec import sha256_of_json
from service.api.schemas.evaluation_examples import PROOF_REPORT_EXAMPLE
from service.api.schemas.runs import REPORT_EXAMPLE
from service.store import aliases, leases, projects, proofs
from service.store.database import now
from service.store.models import Job, Report
from service.store.models import Proof as ProofRow
from tests.service.api.conftest import NewApi
from tests.service.api.world import Api, assert_problem, spec_for

Response = Any


def finished(api: Api) -> tuple[str, str]:
    """A job that has ended with a report that shows a gain, and its checkpoint."""
    job_id = api.new_job()
    api.run(job_id)
    return job_id, api.checkpoint_id(job_id)


def reported(api: Api, job_id: str, *, low: float = 0.15, high: float = 0.19, verdict: str = "improved") -> None:
    """The same report with another interval, as its worker would have stored it."""
    (line,) = REPORT_EXAMPLE["rewards"]
    rewards = [{**line, "gain": (low + high) / 2, "gain_interval": {"low": low, "high": high, "confidence": 0.95}}]
    report = {**REPORT_EXAMPLE, "step": 4, "rewards": rewards, "verdict": verdict}
    with api.parts.store.write() as session:
        row = session.get_one(Report, (job_id, 4))
        row.report = report


def promote(api: Api, checkpoint_id: str, key: str | None = None, **body: Any) -> Response:
    headers = {"Idempotency-Key": key} if key else {}
    return api.client.post("/v1/promotions", json={"checkpoint_id": checkpoint_id, **body}, headers=headers)


def test_a_proven_checkpoint_becomes_champion_with_the_report_that_earned_it(any_api: Api) -> None:
    job_id, checkpoint_id = finished(any_api)
    answer = promote(any_api, checkpoint_id, key="once")
    made = answer.json()
    assert answer.status_code == 201, answer.text
    assert promote(any_api, checkpoint_id, key="once").json() == made
    assert len(any_api.client.get("/v1/promotions").json()["data"]) == 1
    assert answer.headers["location"] == f"/v1/promotions/{made['id']}"
    assert any_api.client.get(answer.headers["location"]).json() == made
    report = any_api.client.get(f"/v1/jobs/{job_id}/report").json()
    proof = made["proof"]
    assert (proof["job_id"], proof["reward"], proof["low"], proof["high"]) == (job_id, "colorfulness", 0.15, 0.19)
    manifest = any_api.client.get(f"/v1/jobs/{job_id}/manifest").json()
    assert proof["report_sha256"] == manifest["report_sha256"]
    assert report["rewards"][0]["gain_interval"]["low"] == proof["low"]
    assert (made["alias"], made["step"], made["forced"], made["previous_checkpoint_id"]) == ("champion", 4, False, None)
    alias = any_api.client.get("/v1/aliases/champion").json()
    assert (alias["checkpoint_id"], alias["promotion"]) == (checkpoint_id, made)
    assert any_api.client.get("/v1/aliases").json()["data"] == [alias]
    reported(any_api, job_id, low=-1.0, high=1.0)
    assert any_api.client.get(answer.headers["location"]).json() == made, "the proof is of the report as it was"


UNPROVEN: list[tuple[dict[str, Any], str]] = [
    ({"low": -0.01, "high": 0.2}, "does not show that it is better"),
    ({"low": 0.0, "high": 0.2}, "does not show that it is better"),
    ({"low": -0.3, "high": -0.1, "verdict": "worse"}, "does not show that it is better"),
    ({"low": 0.1, "high": 0.1, "verdict": "unknown"}, "decides nothing"),
]


def test_what_no_report_shows_to_be_better_moves_by_force_alone_and_that_is_told(api: Api) -> None:
    job_id, checkpoint_id = finished(api)
    for report, why in UNPROVEN:
        reported(api, job_id, **report)
        problem = assert_problem(promote(api, checkpoint_id, alias="mine"), 409, "promotion_unproven")
        assert why in problem["detail"]
        assert_problem(promote(api, checkpoint_id, force=True), 422, "invalid_request")
        assert api.client.get("/v1/promotions").json()["data"] == []
    made = promote(api, checkpoint_id, force=True, reason="people liked it").json()
    assert (made["forced"], made["reason"]) == (True, "people liked it")
    assert made["proof"]["low"] == 0.1, "what the report said is told all the same"
    reported(api, job_id)
    assert promote(api, checkpoint_id, force=True, reason="to be sure").json()["forced"] is False, "it was not needed"


def test_a_checkpoint_that_the_report_is_not_on_has_none(api: Api) -> None:
    job_id = api.new_job()
    attempt = api.claim(job_id)
    api.save_checkpoint(job_id, attempt, 2)
    api.save_checkpoint(job_id, attempt, 4)
    api.evaluate(job_id, attempt, 4)
    first, last = (one["id"] for one in api.client.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"])
    problem = assert_problem(promote(api, first), 409, "promotion_unproven")
    assert "no report with a reward on the checkpoint of step 2" in problem["detail"]
    assert promote(api, last).status_code == 201
    candidate = promote(api, first, alias="candidate").json()
    assert (candidate["proof"], candidate["forced"]) == (None, False), "it is what is still to be proven"


def test_the_history_of_a_name_is_kept(api: Api) -> None:
    (first_job, first), (_, second) = finished(api), finished(api)
    promote(api, first)
    promote(api, second, alias="candidate")
    promote(api, second, reason="brighter")
    assert api.client.delete("/v1/aliases/champion").json() == {"id": "champion", "object": "alias", "deleted": True}
    assert_problem(api.client.get("/v1/aliases/champion"), 404, "alias_not_found")
    assert_problem(api.client.delete("/v1/aliases/champion"), 404, "alias_not_found")
    assert api.client.delete(f"/v1/jobs/{first_job}").status_code == 200
    history = api.client.get("/v1/promotions?alias=champion").json()["data"]
    told = [(one["checkpoint_id"], one["previous_checkpoint_id"], one["reason"]) for one in history]
    assert told == [(None, second, None), (second, first, "brighter"), (first, None, None)]
    page = api.client.get("/v1/promotions?limit=2").json()
    assert (len(page["data"]), page["has_more"]) == (2, True)


def test_of_many_that_give_a_new_name_at_once_each_follows_another(any_api: Api) -> None:
    api = any_api
    _, checkpoint_id = finished(api)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: promote(api, checkpoint_id, alias="candidate"), range(8)))
    assert [answer.status_code for answer in answers] == [201] * 8
    before = [answer.json()["previous_checkpoint_id"] for answer in answers]
    assert sorted(before, key=str) == sorted([None, *[checkpoint_id] * 7], key=str)


def test_what_a_name_points_at_cannot_be_deleted(any_api: Api) -> None:
    (job_id, checkpoint_id), (_, other) = finished(any_api), finished(any_api)
    promote(any_api, checkpoint_id)
    promote(any_api, checkpoint_id, alias="mine")
    url = f"/v1/checkpoints/{checkpoint_id}?even_result=true"
    problem = assert_problem(any_api.client.delete(url), 409, "checkpoint_in_use")
    assert "the aliases champion, mine point at it" in problem["detail"]
    promote(any_api, other, alias="mine")
    problem = assert_problem(any_api.client.delete(f"/v1/jobs/{job_id}"), 409, "job_in_use")
    assert "the alias champion points at it; promote another checkpoint, or delete the alias" in problem["detail"]
    any_api.client.delete("/v1/aliases/champion")
    assert any_api.client.delete(url).status_code == 200
    assert any_api.client.delete(f"/v1/jobs/{job_id}").status_code == 200


def test_a_job_that_names_the_champion_begins_from_what_it_points_at_then(api: Api) -> None:
    (_, first), (_, second) = finished(api), finished(api)
    promote(api, first)
    spec = {**spec_for(api.ready_dataset()), "model": "@champion"}
    checked = api.client.post("/v1/jobs/validate", json={"spec": spec}).json()
    assert checked["valid"], checked["errors"]
    job = api.client.post("/v1/jobs", json={"spec": spec}).json()
    promote(api, second)
    stored = api.client.get(f"/v1/jobs/{job['id']}").json()["spec"]
    assert stored == job["spec"] == checked["resolved_spec"]
    assert stored["model"] == {"type": "catalog", "name": "shapes"}
    assert stored["start"] == {
        "lora": {"type": "checkpoint", "id": first},
        "mode": "merge",
        "initial": "lora",
        "alpha": None,
    }
    assert job["parent"]["checkpoint_id"] == first


def test_all_trials_of_a_sweep_begin_from_what_the_name_points_at(api: Api) -> None:
    _, checkpoint_id = finished(api)
    promote(api, checkpoint_id)
    spec = {**spec_for(api.ready_dataset()), "model": "@champion"}
    search = {"type": "grid", "axes": {"training.learning_rate": [1e-4, 3e-4]}}
    swept = api.client.post("/v1/sweeps", json={"spec": spec, "search": search})
    assert swept.status_code == 201, swept.text
    for job_id in (one["job_id"] for one in swept.json()["table"]["trials"] if one["job_id"] is not None):
        stored = api.client.get(f"/v1/jobs/{job_id}").json()["spec"]
        assert stored["start"]["lora"] == {"type": "checkpoint", "id": checkpoint_id}
    nobody = api.client.post("/v1/sweeps", json={"spec": {**spec, "model": "@nobody"}, "search": search})
    assert_problem(nobody, 422, "invalid_request")


def test_a_champion_that_is_a_whole_model_is_the_model(api: Api) -> None:
    job_id = api.new_job()
    attempt = api.claim(job_id)
    api.save_checkpoint(job_id, attempt, 4, kind="full")
    api.evaluate(job_id, attempt, 4)
    checkpoint_id = api.checkpoint_id(job_id)
    promote(api, checkpoint_id, alias="whole")
    spec = {**spec_for(api.ready_dataset()), "model": {"type": "alias", "name": "whole"}}
    job = api.client.post("/v1/jobs", json={"spec": spec}).json()
    assert job["spec"]["model"] == {"type": "checkpoint", "id": checkpoint_id}
    assert job["spec"]["start"] is None


def test_names_that_no_job_can_begin_from_are_told(api: Api) -> None:
    _, checkpoint_id = finished(api)
    promote(api, checkpoint_id)

    def error(**changes: Any) -> tuple[str, str]:
        spec = {**spec_for(api.ready_dataset()), **changes}
        (one,) = api.client.post("/v1/jobs/validate", json={"spec": spec}).json()["errors"]
        posted = assert_problem(api.client.post("/v1/jobs", json={"spec": spec}), 422, "invalid_request")
        assert posted["errors"] == [one]
        return one["pointer"], one["code"]

    assert error(model="@nobody") == ("/spec/model/name", "alias_not_found")
    assert error(model="@champion", start={"lora": checkpoint_id}) == ("/spec/start", "start_unfit")
    assert_problem(promote(api, f"ckpt_{'0' * 26}"), 404, "checkpoint_not_found")
    assert_problem(promote(api, checkpoint_id, alias="Not A Name"), 422, "invalid_request")


def test_models_lists_the_projects_champions_beside_the_catalog(api: Api) -> None:
    job_id, checkpoint_id = finished(api)
    promote(api, checkpoint_id)
    found = {one["id"]: one for one in api.client.get("/v1/models").json()["data"]}
    champion = found["@champion"]
    assert champion["source"] == {"type": "alias", "name": "champion"}
    assert (champion["checkpoint_id"], found["shapes"]["checkpoint_id"]) == (checkpoint_id, None)
    assert (champion["family"], champion["resolution"]) == ("sd", 32)
    assert champion["description"] == f"step 4 of {job_id}, trained on shapes"
    spec = {**spec_for(api.ready_dataset()), "model": champion["source"]}
    assert api.client.post("/v1/jobs", json={"spec": spec}).status_code == 201


def test_names_are_a_projects_own(new_api: NewApi) -> None:
    api = new_api(api_keys_required=True)
    store = api.parts.store
    other = projects.create_key(store, projects.create_project(store, "other").id, "k")[0]
    own = projects.create_key(store, projects.DEFAULT_PROJECT_ID, "k")[0]
    api.client.headers["Authorization"] = f"Bearer {own}"
    _, checkpoint_id = finished(api)
    made = promote(api, checkpoint_id).json()
    api.client.headers["Authorization"] = f"Bearer {other}"
    assert_problem(promote(api, checkpoint_id), 404, "checkpoint_not_found")
    for path in ("/v1/aliases", "/v1/promotions"):
        assert api.client.get(path).json()["data"] == []
    assert_problem(api.client.get("/v1/aliases/champion"), 404, "alias_not_found")
    assert_problem(api.client.delete("/v1/aliases/champion"), 404, "alias_not_found")
    assert_problem(api.client.get(f"/v1/promotions/{made['id']}"), 404, "promotion_not_found")
    assert "@champion" not in [one["id"] for one in api.client.get("/v1/models").json()["data"]]
    alias = aliases.get(store, projects.DEFAULT_PROJECT_ID, "champion")
    assert alias is not None
    assert alias.promotion.checkpoint_id == checkpoint_id


def evaluated(
    api: Api, anchor: str, checkpoint_id: str, *, low: float = 0.15, holm: float | None = None, **contender: Any
) -> str:
    """An evaluation that has ended, in which `new`, the checkpoint, competes with `old`, the anchor; `low` and `holm` are what it found."""
    spec = {
        "contenders": [{"name": "old", "model": anchor}, {"name": "new", "model": checkpoint_id, **contender}],
        "prompts": ["a big red circle"],
        "rewards": ["colorfulness"],
    }
    answer = api.client.post("/v1/evaluations", json={"spec": spec})
    assert answer.status_code == 201, answer.text
    evaluation_id = answer.json()["id"]
    (line,) = REPORT_EXAMPLE["rewards"]
    found = {**line, "gain_interval": {"low": low, "high": 0.4, "confidence": 0.95}, "holm_p_value": holm}
    (comparison,) = PROOF_REPORT_EXAMPLE["comparisons"]
    comparison = {**comparison, "rewards": [found], "policy": {**comparison["policy"], "label": "new"}}
    attempt = api.claim(evaluation_id)
    with api.parts.store.write() as session:
        row = session.get_one(Job, evaluation_id)
        report = {**PROOF_REPORT_EXAMPLE, "comparisons": [comparison]}
        told = {"job_id": row.id, "project_id": row.project_id, "attempt": attempt, "created_at": now(session)}
        session.add(ProofRow(**told, report=report))
    leases.finish(api.parts.store, evaluation_id, attempt, "succeeded")
    return evaluation_id


def test_an_evaluation_against_the_champion_earns_the_name(any_api: Api) -> None:
    api = any_api
    (_, first), (other_job, second) = finished(api), finished(api)
    promote(api, first)
    reported(api, other_job, low=-0.1)
    evaluation_id = evaluated(api, "@champion", second)
    made = promote(api, second, evaluation_id=evaluation_id).json()
    proof = made["proof"]
    assert (made["previous_checkpoint_id"], made["forced"], proof["low"]) == (first, False, 0.15)
    assert (proof["evaluation_id"], proof["contender"], proof["anchor"]) == (evaluation_id, "new", "old")
    stored = proofs.get_proof(api.parts.store, projects.DEFAULT_PROJECT_ID, evaluation_id)
    assert stored is not None
    assert proof["report_sha256"] == sha256_of_json(stored.report)
    problem = assert_problem(api.client.delete(f"/v1/evaluations/{evaluation_id}"), 409, "evaluation_in_use")
    assert "the alias champion points at what it earned" in problem["detail"]
    promote(api, first)
    assert api.client.delete(f"/v1/evaluations/{evaluation_id}").status_code == 200


def test_an_evaluation_earns_nothing_for_what_it_does_not_show_to_be_better_than_what_it_has_to_beat(api: Api) -> None:
    (_, first), (_, second) = finished(api), finished(api)

    def told(evaluation_id: str) -> str:
        answer = promote(api, second, evaluation_id=evaluation_id)
        return assert_problem(answer, 409, "promotion_unproven")["detail"]

    assert "is not what it has to beat: the model that its job began from" in told(evaluated(api, first, second))
    assert "none of the contenders" in told(evaluated(api, "shapes", first))
    lora = {"lora": second, "strength": 0.5, "model": "shapes"}
    assert "none of the contenders" in told(evaluated(api, "shapes", second, **lora)), (
        "another strength is another model"
    )
    assert "does not show that it is better" in told(evaluated(api, "shapes", second, low=-0.01))
    assert "among so many contenders" in told(evaluated(api, "shapes", second, holm=0.06))
    spec = {"contenders": [{"name": "old", "model": "shapes"}, {"name": "new", "model": second}]}
    waiting = api.client.post("/v1/evaluations", json={"spec": {**spec, "prompts": ["a"], "rewards": ["jpeg_size"]}})
    assert "has no report: it is queued" in told(waiting.json()["id"])
    gone = promote(api, second, evaluation_id=f"eval_{'0' * 26}")
    assert_problem(gone, 404, "evaluation_not_found")
    forced = promote(api, second, evaluation_id=waiting.json()["id"], force=True, reason="raters").json()
    assert (forced["forced"], forced["proof"]) == (True, None)
    assert promote(api, second, evaluation_id=evaluated(api, "shapes", second)).json()["forced"] is False


def test_a_lora_on_a_merged_one_is_no_contender_as_it_would_be_drawn_without_it(api: Api) -> None:
    _, first = finished(api)
    promote(api, first)
    job = api.client.post("/v1/jobs", json={"spec": {**spec_for(api.ready_dataset()), "model": "@champion"}}).json()
    api.run(job["id"])
    checkpoint_id = api.checkpoint_id(job["id"])
    spec = {"contenders": [{"name": "old", "model": "shapes"}, {"name": "new", "model": checkpoint_id}]}
    answer = api.client.post("/v1/evaluations", json={"spec": {**spec, "prompts": ["a"], "rewards": ["jpeg_size"]}})
    (problem,) = assert_problem(answer, 422, "invalid_request")["errors"]
    assert (problem["pointer"], problem["code"]) == ("/spec/contenders/1/model/id", "lora_on_merged_model")


def test_a_project_has_so_many_names_and_those_that_there_are_move_on(new_api: NewApi) -> None:
    api = new_api(aliases_per_project=1)
    _, checkpoint_id = finished(api)
    assert promote(api, checkpoint_id).status_code == 201
    problem = assert_problem(promote(api, checkpoint_id, alias="candidate"), 409, "too_many_aliases")
    assert (
        problem["detail"] == "this project has 1 aliases, the most that it may; delete one that nobody names any more"
    )
    assert promote(api, checkpoint_id).status_code == 201, "no new one"
    assert api.client.delete("/v1/aliases/champion").status_code == 200
    assert promote(api, checkpoint_id, alias="candidate").status_code == 201
