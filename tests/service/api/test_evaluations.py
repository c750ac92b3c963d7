"""Evaluations over HTTP: what is taken, what is refused at which field, what is shown, and who sees it."""

from typing import Any

import pytest

from alignment_core.events import (
    ImagesScored,
    PhaseChanged,
    ProofCompleted,
    ProofStarted,
    RunCompleted,
    VerificationCompleted,
)
from alignment_core.model_files import ModelReport
from alignment_core.spec import HubSource, ProofSpec
from service.api.schemas.evaluation_examples import PROOF_REPORT_EXAMPLE, VERIFICATION_EXAMPLE
from service.store import cards, contests, events, jobs, keys, known_models, leases, waiting
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.catalog import CardRecord
from tests.service.api.conftest import NewApi
from tests.service.api.test_auth import key_of
from tests.service.api.world import PAGE, Api, assert_problem, spec_for

SPEC: dict[str, Any] = {
    "contenders": [{"name": "base", "model": "shapes"}, {"name": "aligned", "model": "shapes"}],
    "prompts": ["a big red circle", "a small blue star"],
    "rewards": ["colorfulness"],
}


def created(api: Api, **changes: Any) -> dict[str, Any]:
    answer = api.client.post("/v1/evaluations", json={"spec": {**SPEC, **changes}, "metadata": {"team": "design"}})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/evaluations/{answer.json()['id']}"
    return answer.json()


def refused(api: Api, **changes: Any) -> list[tuple[str, str]]:
    problem = assert_problem(
        api.client.post("/v1/evaluations", json={"spec": {**SPEC, **changes}}), 422, "invalid_request"
    )
    return [(one["pointer"], one["code"]) for one in problem["errors"]]


def contenders(**second: Any) -> dict[str, Any]:
    return {"contenders": [SPEC["contenders"][0], {"name": "other", "model": "shapes", **second}]}


def run(api: Api, evaluation_id: str) -> None:
    """Its whole life, with everything that it leaves."""
    spec = ProofSpec.model_validate(api.client.get(f"/v1/evaluations/{evaluation_id}").json()["spec"])
    attempt = api.claim(evaluation_id)
    started = ProofStarted(
        spec_sha256=spec.sha256(), num_images=8, num_there=0, device="cpu", card="a", precision="fp32", versions={}
    )
    api.say(evaluation_id, attempt, started, PhaseChanged(phase="sampling"))
    scored = ImagesScored(contender="base", path="shards/base-00000.parquet", done=4, total=8)
    told(api, evaluation_id, attempt, scored, scored.path, b"shard")
    api.evaluate(evaluation_id, attempt, 1)
    api.draw_sample(evaluation_id, attempt, 1)
    done = ProofCompleted(path="report.json", scores="scores.parquet", report=PROOF_REPORT_EXAMPLE)
    told(api, evaluation_id, attempt, done, "scores.parquet", b"PAR1 scores")
    api.say(evaluation_id, attempt, RunCompleted(step=8))
    leases.finish(api.parts.store, evaluation_id, attempt, "succeeded")


def verified(api: Api, verification_id: str, attempt: int) -> None:
    """The end of a verification that found everything as it was."""
    outcome = VerificationCompleted(report=VERIFICATION_EXAMPLE["report"])
    api.say(verification_id, attempt, outcome, RunCompleted(step=2))
    leases.finish(api.parts.store, verification_id, attempt, "succeeded")


def told(api: Api, row_id: str, attempt: int, event: Any, path: str, content: bytes) -> None:
    key = keys.proof_file_key(DEFAULT_PROJECT_ID, row_id, path, attempt)
    events.record_event(api.parts.store, row_id, attempt, event, [api.keep(path, key, content)])


def test_an_evaluation_waits_in_the_queue_and_is_no_job(any_api: Api) -> None:
    api = any_api
    job_id, found = api.new_job(), created(api)
    assert found["id"].startswith("eval_")
    assert found["spec"]["anchor"] == "base"
    assert (found["status"], found["queue"]["position"]) == ("queued", 2)
    assert found["progress"] == {"done": 0, "total": 8, "percent": 0.0}
    assert waiting.next_jobs(api.parts.store, 5) == (job_id, found["id"])
    listed = api.client.get("/v1/evaluations", params={"metadata[team]": "design", "status": "queued"}).json()["data"]
    assert [one["id"] for one in listed] == [found["id"]]
    assert "spec" not in listed[0]
    assert [one["id"] for one in api.client.get("/v1/jobs").json()["data"]] == [job_id]
    assert_problem(api.client.get(f"/v1/jobs/{found['id']}"), 404, "job_not_found")
    assert_problem(api.client.get(f"/v1/evaluations/{job_id}"), 404, "evaluation_not_found")


def test_what_it_leaves_is_at_the_evaluation(any_api: Api) -> None:
    api = any_api
    evaluation_id = created(api)["id"]
    place = f"/v1/evaluations/{evaluation_id}"
    assert_problem(api.client.get(f"{place}/report"), 404, "report_not_found")
    assert_problem(api.client.post(f"{place}/verify", json={}), 409, "nothing_to_verify")
    run(api, evaluation_id)
    found = api.client.get(place).json()
    assert (found["status"], found["best"], found["progress"]["done"]) == ("succeeded", "aligned", 4)
    assert found["scores_url"] == f"{place}/scores.parquet"
    assert api.client.get(f"{place}/report").json() == PROOF_REPORT_EXAMPLE
    assert api.client.get(f"{place}/report.html").content == PAGE
    label = PROOF_REPORT_EXAMPLE["comparisons"][0]["policy"]["label"]
    assert api.client.get(f"{place}/report.html", params={"contender": label}).content == PAGE
    assert_problem(api.client.get(f"{place}/report.html", params={"contender": "nobody"}), 404, "contender_not_found")
    assert api.download(f"{place}/scores.parquet") == b"PAR1 scores"
    (picture,) = api.client.get(f"{place}/pictures").json()["data"]
    assert picture["image_url"].startswith(f"{place}/pictures/smp_")
    assert api.download(picture["image_url"]).startswith(b"\x89PNG")
    types = [one["type"] for one in api.client.get(f"{place}/events").json()["data"]]
    assert types[0] == "proof_started"
    assert types[-1] == "run_completed"


def test_a_verification_runs_as_a_row_of_its_own_and_is_shown_at_the_evaluation(any_api: Api) -> None:
    api = any_api
    evaluation_id = created(api)["id"]
    run(api, evaluation_id)
    place = f"/v1/evaluations/{evaluation_id}"
    answer = api.client.post(f"{place}/verify", json={"num_prompts": 1})
    assert answer.status_code == 202, answer.text
    verification_id = answer.json()["id"]
    assert verification_id.startswith("vfy_")
    assert [one["id"] for one in api.client.get("/v1/evaluations").json()["data"]] == [evaluation_id]
    row = jobs.get(api.parts.store, DEFAULT_PROJECT_ID, verification_id)
    assert row is not None
    assert row.spec["num_prompts"] == 1
    attempt = api.claim(verification_id)
    assert_problem(api.client.delete(place), 409, "evaluation_in_use")
    verified(api, verification_id, attempt)
    (shown,) = api.client.get(place).json()["verifications"]
    assert (shown["status"], shown["report"]["outcome"]) == ("succeeded", "identical")
    assert api.client.delete(place).json() == {"id": evaluation_id, "object": "evaluation", "deleted": True}
    assert jobs.get(api.parts.store, DEFAULT_PROJECT_ID, verification_id) is None
    assert_problem(api.client.get(place), 404, "evaluation_not_found")


def test_a_verification_that_is_asked_for_twice_under_one_key_is_queued_once(any_api: Api) -> None:
    evaluation_id = created(any_api)["id"]
    run(any_api, evaluation_id)
    place, key = f"/v1/evaluations/{evaluation_id}", {"Idempotency-Key": "verify-it"}
    first, again = (any_api.client.post(f"{place}/verify", json={"num_prompts": 1}, headers=key) for _ in range(2))
    assert (first.status_code, again.status_code, again.json()) == (202, 202, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert "location" not in first.headers
    assert [one["id"] for one in any_api.client.get(place).json()["verifications"]] == [first.json()["id"]]
    other = any_api.client.post(f"{place}/verify", json={"num_prompts": 2}, headers=key)
    assert_problem(other, 422, "idempotency_key_reused")
    any_api.client.post(f"{place}/cancel")
    assert any_api.client.delete(place).status_code == 200
    assert_problem(any_api.client.post(f"{place}/verify", json={}, headers=key), 404, "evaluation_not_found")


def test_a_verification_that_waits_is_cancelled_with_its_evaluation_which_stays_as_it_ended(api: Api) -> None:
    place = f"/v1/evaluations/{created(api)['id']}"
    run(api, place.rpartition("/")[2])
    api.client.post(f"{place}/verify", json={"num_prompts": 1})
    assert api.client.post(f"{place}/cancel").json()["status"] == "succeeded"
    assert [one["status"] for one in api.client.get(place).json()["verifications"]] == ["cancelled"]
    assert_problem(api.client.post(f"{place}/cancel"), 409, "invalid_transition")
    assert api.client.delete(place).status_code == 200


def test_it_is_cancelled_and_not_resumed(api: Api) -> None:
    place = f"/v1/evaluations/{created(api)['id']}"
    assert api.client.post(f"{place}/cancel").json()["status"] == "cancelled"
    problem = assert_problem(api.client.post(f"{place}/resume"), 409, "invalid_transition")
    assert problem["detail"] == "resume is not possible: the evaluation is cancelled"


def test_it_is_paused_and_goes_on_when_it_is_resumed(api: Api) -> None:
    place = f"/v1/evaluations/{created(api)['id']}"
    assert api.client.post(f"{place}/pause").json()["status"] == "paused"
    assert api.client.post(f"{place}/resume").json()["status"] == "queued"
    api.claim(place.rpartition("/")[2])
    assert api.client.post(f"{place}/pause").json()["status"] == "pausing"
    api.client.post(f"{place}/cancel")
    assert_problem(api.client.post(f"{place}/pause"), 409, "invalid_transition")


def test_a_lora_whose_layers_are_not_the_models_is_refused_with_their_names(api: Api) -> None:
    hub = {"type": "hub", "repo_id": "owner/model", "revision": "a" * 40}
    source = HubSource.model_validate(hub)
    known_models.ask(api.parts.store, source)
    layers = {"down.to_q": (8, 4), "down.to_k": (8, 4)}
    known_models.remember(api.parts.store, source, ModelReport(pipeline_class="StableDiffusionPipeline", layers=layers))
    fits = api.ready_weights(format="diffusers", layers={"unet.down.to_q": (4, 8)})
    other = api.ready_weights(format="diffusers", layers={"unet.down.to_q": (4, 9), "unet.up.to_q": (4, 8)})
    spec = {**SPEC, "contenders": [{"name": "base", "model": hub}, {"name": "odd", "model": hub, "lora": other}]}
    answer = api.client.post("/v1/evaluations", json={"spec": spec})
    (problem,) = assert_problem(answer, 422, "invalid_request")["errors"]
    assert (problem["pointer"], problem["code"]) == ("/spec/contenders/1/lora/id", "lora_unfit")
    assert "'unet.down.to_q' has 4 inputs and 9 outputs, and the model's layer 4 and 8" in problem["message"]
    assert "'unet.up.to_q' is no layer of the model" in problem["message"]
    spec["contenders"][1]["lora"] = fits
    assert api.client.post("/v1/evaluations", json={"spec": spec}).status_code == 201


def test_a_denoiser_whose_layers_are_not_the_models_is_refused_with_their_names(api: Api) -> None:
    hub = {"type": "hub", "repo_id": "owner/model", "revision": "a" * 40}
    source = HubSource.model_validate(hub)
    known_models.ask(api.parts.store, source)
    layers = {"conv_in": (8, 4, 3, 3), "down.to_q": (8, 4), "up.to_q": (8, 4)}
    known_models.remember(api.parts.store, source, ModelReport(pipeline_class="StableDiffusionPipeline", layers=layers))
    others = {"conv_in": (8, 9, 3, 3), "down.to_q": (8, 4), "mid.to_q": (8, 4)}
    fits, other, of_old = (api.ready_weights(holds="denoiser", shapes=one) for one in (layers, others, {}))
    spec = {**SPEC, "contenders": [{"name": "base", "model": hub}, {"name": "odd", "model": hub, "denoiser": other}]}
    answer = api.client.post("/v1/evaluations", json={"spec": spec})
    (problem,) = assert_problem(answer, 422, "invalid_request")["errors"]
    assert (problem["pointer"], problem["code"]) == ("/spec/contenders/1/denoiser/id", "denoiser_unfit")
    assert problem["message"] == (
        "'conv_in' has the shape [8, 9, 3, 3], and in the model it has [8, 4, 3, 3]; "
        "'mid.to_q' is no layer of the model's denoiser; the model's layer 'up.to_q' is missing"
    )
    for taken in (fits, of_old):  # one that was looked into before shapes were kept shows when it is loaded
        spec["contenders"][1]["denoiser"] = taken
        assert api.client.post("/v1/evaluations", json={"spec": spec}).status_code == 201


def test_an_evaluation_is_checked_and_estimated_without_being_queued(api: Api) -> None:
    hub = {"type": "hub", "repo_id": "owner/model", "revision": "a" * 40}
    source = HubSource.model_validate(hub)

    def validated(**changes: Any) -> dict[str, Any]:
        pair = [{"name": "base", "model": hub}, {"name": "other", "model": hub}]
        body = {"spec": {**SPEC, "contenders": pair, **changes}}
        return api.client.post("/v1/evaluations/validate", json=body).json()

    before = validated()
    assert (before["valid"], before["estimate"]["num_images"], before["estimate"]["memory"]) == (True, 8, None)
    assert "no worker has read" in before["warnings"][0]
    layers = {"down_blocks.0.attentions.0.to_q": (64, 64), "conv_in": (64, 4, 3, 3)}
    read = ModelReport(
        pipeline_class="StableDiffusionPipeline", layers=layers, resolution=64, num_parameters=2**30, vae_channels=128
    )
    known_models.remember(api.parts.store, source, read)
    found = validated()["estimate"]
    assert found["memory"]["weights"] == 4.0, "float32 on a CPU"
    assert set(found["duration"]["phases"]) == {"loading", "evaluating"}
    assert 0 < found["duration"]["total"]["low"] < found["duration"]["total"]["high"]
    assert 0 < found["stored"]["low"] < found["stored"]["expected"] < found["stored"]["high"]
    twice = validated(seeds_per_prompt=4)["estimate"]
    assert (twice["num_images"], twice["memory"]) == (16, found["memory"])
    seconds = [one["duration"]["phases"]["evaluating"]["expected"] for one in (found, twice)]
    assert seconds[0] < seconds[1]
    refused = validated(contenders=[{"name": "base", "model": hub}, {"name": "other", "model": "nobody"}])
    assert (refused["valid"], refused["resolved_spec"], refused["estimate"]) == (False, None, None)
    assert refused["errors"][0]["pointer"].startswith("/spec/contenders/1/model")
    wrong = api.client.post("/v1/evaluations/validate", json={"spec": {}}).json()
    assert not wrong["valid"]
    assert api.client.get("/v1/evaluations").json()["data"] == []


def test_a_contender_that_fits_no_card_of_the_workers_is_refused_with_what_it_needs(api: Api) -> None:
    hub = {"type": "hub", "repo_id": "owner/large", "revision": "b" * 40}
    source = HubSource.model_validate(hub)
    known_models.ask(api.parts.store, source)
    layers = {"conv_in": (64, 4, 3, 3)}
    read = ModelReport(
        pipeline_class="StableDiffusionPipeline", layers=layers, resolution=64, num_parameters=2**34, vae_channels=128
    )
    known_models.remember(api.parts.store, source, read)
    cards.announce(api.parts.store, CardRecord(device="cpu", name="small", memory_bytes=8 * 2**30))
    spec = {**SPEC, "contenders": [SPEC["contenders"][0], {"name": "large", "model": hub}]}
    pair = [{"name": "base", "model": hub}, {"name": "large", "model": hub}]
    answer = api.client.post("/v1/evaluations", json={"spec": {**spec, "contenders": pair}})
    (problem,) = assert_problem(answer, 422, "invalid_request")["errors"]
    assert (problem["pointer"], problem["code"]) == ("/spec/sampling/batch_size", "does_not_fit")
    assert "needs about 64.0 GiB" in problem["message"]


def test_every_id_in_a_contender_is_looked_up(api: Api) -> None:
    nobody, none = "wts_" + "0" * 26, "ckpt_" + "0" * 26
    assert refused(api, **contenders(model="sd9")) == [("/spec/contenders/1/model/name", "unknown_model")]
    assert refused(api, **contenders(model=none)) == [("/spec/contenders/1/model/id", "checkpoint_not_found")]
    assert refused(api, **contenders(model="@best")) == [("/spec/contenders/1/model/name", "alias_not_found")]
    assert refused(api, **contenders(lora=none)) == [("/spec/contenders/1/lora/id", "checkpoint_not_found")]
    assert refused(api, **contenders(lora=nobody)) == [("/spec/contenders/1/lora/id", "weights_not_found")]
    assert refused(api, **contenders(denoiser=nobody)) == [("/spec/contenders/1/denoiser/id", "weights_not_found")]
    assert refused(api, prompts="ps_" + "0" * 26) == [("/spec/prompts/id", "prompt_set_not_found")]
    local = {"type": "local", "path": "/etc"}
    assert refused(api, **contenders(model=local)) == [("/spec/contenders/1/model/path", "local_path_refused")]
    assert refused(api, **contenders(denoiser=local)) == [("/spec/contenders/1/denoiser/path", "local_path_refused")]
    remote = {"type": "remote", "url": "https://elsewhere.example/score"}
    assert refused(api, rewards=[remote]) == [("/spec/rewards/0/url", "remote_host_refused")]


def test_more_images_than_the_server_draws_are_refused_with_what_they_come_from(new_api: NewApi) -> None:
    api = new_api(max_evaluation_images=8)
    assert created(api, seeds_per_prompt=2)["spec"]["seeds_per_prompt"] == 2, "2 contenders x 2 prompts x 2 seeds are 8"
    assert refused(api, seeds_per_prompt=3) == [("/spec/prompts", "too_many_images")]
    body = {"spec": {**SPEC, "seeds_per_prompt": 3}}
    (told_why,) = api.client.post("/v1/evaluations/validate", json=body).json()["errors"]
    assert "2 contenders x 2 prompts x 3 seeds are 12 images" in told_why["message"]


def test_a_lora_is_no_denoiser_nor_the_other_way_round(api: Api) -> None:
    lora, unet = api.ready_weights(), api.ready_weights(holds="denoiser")
    wrong = "weights_of_another_kind"
    assert refused(api, **contenders(denoiser=lora)) == [("/spec/contenders/1/denoiser/id", wrong)]
    assert refused(api, **contenders(lora=unet)) == [("/spec/contenders/1/lora/id", wrong)]
    assert created(api, **contenders(denoiser=unet, lora=lora, strength=0.5))["status"] == "queued"
    assert refused(api, **contenders(lora=api.ready_weights(says_alpha=False))) == [
        ("/spec/contenders/1/alpha", "lora_alpha_unknown")
    ]


def test_weights_and_checkpoints_of_an_evaluation_cannot_be_deleted_before_its_end(api: Api) -> None:
    lora = api.ready_weights()
    evaluation_id = created(api, **contenders(lora=lora))["id"]
    problem = assert_problem(api.client.delete(f"/v1/weights/{lora}"), 409, "weights_in_use")
    assert evaluation_id in problem["detail"]


def test_a_checkpoint_that_is_deleted_while_it_is_being_named_is_told_at_its_place(
    any_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = any_api
    job_id = api.new_job()
    api.run(job_id)
    checkpoint_id, create = api.checkpoint_id(job_id), contests.create

    def late(*args: Any, **given: Any) -> Any:
        assert api.client.delete(f"/v1/checkpoints/{checkpoint_id}?even_result=true").status_code == 200
        return create(*args, **given)

    monkeypatch.setattr(contests, "create", late)
    assert refused(api, **contenders(model=checkpoint_id)) == [("/spec/contenders/1/model/id", "checkpoint_not_found")]


def test_a_lora_on_a_model_that_is_gone_is_refused(api: Api) -> None:
    whole = api.new_job()
    attempt = api.claim(whole)
    api.save_checkpoint(whole, attempt, 4, kind="full")
    leases.finish(api.parts.store, whole, attempt, "succeeded")
    base = api.checkpoint_id(whole)
    on_it = api.new_job(spec={**spec_for(api.ready_dataset()), "model": base})
    api.run(on_it)
    lora = api.checkpoint_id(on_it)
    assert created(api, **contenders(model=lora))["spec"]["contenders"][1]["model"]["id"] == base
    for one in api.client.get("/v1/evaluations").json()["data"]:
        api.client.post(f"/v1/evaluations/{one['id']}/cancel")
    assert api.client.delete(f"/v1/checkpoints/{base}?even_result=true").status_code == 200
    assert refused(api, **contenders(model=lora)) == [("/spec/contenders/1/model/id", "checkpoint_not_found")]


def test_the_checkpoint_of_a_lora_stands_for_its_jobs_model_with_it(api: Api) -> None:
    job_id = api.new_job()
    api.run(job_id)
    checkpoint_id = api.checkpoint_id(job_id)
    found = created(api, **contenders(model=checkpoint_id))["spec"]["contenders"][1]
    assert found["model"] == {"type": "catalog", "name": "shapes"}
    assert found["lora"] == {"type": "checkpoint", "id": checkpoint_id}
    both = contenders(model=checkpoint_id, lora=api.ready_weights())
    assert refused(api, **both) == [("/spec/contenders/1/model/id", "checkpoint_of_another_kind")]


def test_nobody_elses_evaluation_is_to_be_seen(new_api: NewApi) -> None:
    api = new_api(api_keys_required=True)
    (_, ours), (_, theirs) = key_of(api, "ours"), key_of(api, "theirs")
    api.client.headers.update(ours)
    place = f"/v1/evaluations/{created(api)['id']}"
    assert api.client.get(place).status_code == 200
    api.client.headers.update(theirs)
    for path in ("", "/report", "/report.html", "/scores.parquet", "/events", "/pictures", "/logs"):
        assert_problem(api.client.get(place + path), 404, "evaluation_not_found")
    for verb in ("cancel", "resume", "verify"):
        assert_problem(api.client.post(f"{place}/{verb}", json={}), 404, "evaluation_not_found")
    assert_problem(api.client.delete(place), 404, "evaluation_not_found")
    assert api.client.get("/v1/evaluations").json()["data"] == []


def test_a_request_that_is_sent_twice_creates_one(api: Api) -> None:
    headers = {"Idempotency-Key": "once"}
    first, second = (api.client.post("/v1/evaluations", json={"spec": SPEC}, headers=headers) for _ in range(2))
    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"
