"""What could never end well is said before the queue: by `validate`, and by the job that would have been."""

import json
from pathlib import Path
from typing import Any

import pytest

from alignment_core.events import CheckpointSaved
from alignment_core.model_files import ModelReport
from alignment_core.reports import LoraReport
from alignment_core.spec import HubSource
from alignment_core.spec.families import FAMILIES
from service.store import cards, known_models, waiting
from service.store.events import record_event
from service.store.records.base import StoredFile
from service.store.records.catalog import CardRecord
from tests.service.api.conftest import NewApi
from tests.service.api.world import Api, spec_for

KTO = {"type": "diffusion_kto", "like_probability": 0.8}
UNPAIRED = {"kind": "unpaired", "num_ties": 0}


def told(api: Api, spec: dict[str, Any]) -> list[tuple[str, str]]:
    """Pointer and code of everything that is refused, which is the same for a dry run and for the job."""
    errors = api.client.post("/v1/jobs/validate", json={"spec": spec}).json()["errors"]
    answer = api.client.post("/v1/jobs", json={"spec": spec})
    assert answer.json().get("errors", []) == errors
    return [(one["pointer"], one["code"]) for one in errors]


def with_method(api: Api, report: dict[str, Any], **method: Any) -> dict[str, Any]:
    spec = spec_for(api.ready_dataset(**report), batch_size=8)
    return {**spec, "method": {**spec["method"], **method}}


def test_a_spec_that_can_end_well_is_taken(api: Api) -> None:
    assert told(api, spec_for(api.ready_dataset())) == []


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"adapter": {"type": "lora", "target_modules": ["no_such_layer"]}}, ("adapter/target_modules", "adapter_target_missing")),
        ({"adapter": {"type": "lora", "target_modules": ["norm1"]}}, ("adapter/target_modules", "adapter_target_missing")),
        ({"evaluation": {"num_inference_steps": 1000}}, None),
        ({"training": {"validation_fraction": 0}}, ("training/validation_fraction", "value_error")),
    ],
)  # fmt: skip
def test_what_the_models_files_tell_is_known(api: Api, changes: dict[str, Any], place: tuple[str, str] | None) -> None:
    spec = {**spec_for(api.ready_dataset()), **changes}
    assert told(api, spec) == ([] if place is None else [(f"/spec/{place[0]}", place[1])])


def test_a_target_that_is_one_of_several_and_matches_nothing_is_warned_about(api: Api) -> None:
    spec = {**spec_for(api.ready_dataset()), "adapter": {"type": "lora", "target_modules": ["to_q", "to_kk"]}}
    answer = api.client.post("/v1/jobs/validate", json={"spec": spec}).json()
    assert answer["valid"]
    assert "adapter.target_modules: no layer of the model has a name that ends in to_kk" in answer["warnings"]


@pytest.mark.parametrize(
    ("pixels", "says"), [(8, "warning"), (32, "nothing"), (64, "warning"), (128, "warning"), (4096, "error")]
)
def test_a_resolution_that_the_model_was_not_made_for(api: Api, pixels: int, says: str) -> None:
    spec = with_method(api, {}, transform={"resolution": pixels})
    answer = api.client.post("/v1/jobs/validate", json={"spec": spec}).json()
    refused = [("/spec/method/transform/resolution", "resolution_unfit")] if says == "error" else []
    assert told(api, spec) == refused
    assert any("transform.resolution" in one for one in answer["warnings"]) == (says == "warning")


@pytest.mark.parametrize(
    ("report", "method", "place"),
    [
        ({"num_groups": 1}, {}, ("evaluation/prompts", "no_evaluation_prompts")),
        ({"num_rows": 9, "num_empty_prompts": 9}, {}, ("evaluation/prompts", "no_evaluation_prompts")),
        ({"num_usable_rows": 7, "num_ties": 7}, {}, ("method/ties", "no_usable_rows")),
        ({"num_usable_rows": 7, "num_ties": 7}, {"ties": "keep"}, None),
        ({**UNPAIRED, "num_likes": 5, "num_dislikes": 0}, KTO, ("method/like_probability", "one_class")),
        ({**UNPAIRED, "num_likes": 0, "num_dislikes": 5}, KTO, ("method/like_probability", "one_class")),
        ({**UNPAIRED, "num_likes": 0, "num_dislikes": 5}, {**KTO, "like_probability": None}, None),
        ({**UNPAIRED, "num_likes": 5, "num_dislikes": 5}, KTO, None),
    ],
)  # fmt: skip
def test_what_the_data_sets_report_tells_is_known(
    api: Api, report: dict[str, Any], method: dict[str, Any], place: tuple[str, str] | None
) -> None:
    assert told(api, with_method(api, report, **method)) == ([] if place is None else [(f"/spec/{place[0]}", place[1])])


def test_one_group_is_enough_where_prompts_are_given(api: Api) -> None:
    spec = spec_for(api.ready_dataset(num_groups=1))
    spec["evaluation"]["prompts"] = ["a red circle"]
    assert told(api, spec) == []


def test_a_report_of_an_online_method_needs_prompts(api: Api) -> None:
    method = {"type": "ddpo", "prompts": ["a red circle"], "reward": "brightness"}
    spec = {"model": "shapes", "method": method, "evaluation": {"rewards": ["brightness"]}}
    assert told(api, spec) == [("/spec/evaluation/prompts", "value_error")]


def test_more_bins_or_steps_than_the_scheduler_has_are_refused(new_api: NewApi, tmp_path: Path) -> None:
    _short_model(tmp_path / "model", num_train_timesteps=50, prediction_type="epsilon")
    entry = {"type": "local", "path": "model", "family": "sd", "resolution": 32}
    (tmp_path / "catalog.json").write_text(json.dumps({"models": {"short": entry}}))
    api = new_api(catalog_path=tmp_path / "catalog.json")
    online = {"type": "ddpo", "prompts": ["a"], "reward": "brightness", "num_inference_steps": 64}
    timesteps = {"type": "timestep_aware", "num_bins": 60}
    assert told(api, {"model": "short", "method": online, "timesteps": timesteps}) == [
        ("/spec/timesteps/num_bins", "too_many_bins"),
        ("/spec/method/num_inference_steps", "too_many_sampling_steps"),
    ]
    rescaled = {**with_method(api, {}, v_rescale="abar"), "model": "short"}
    assert told(api, rescaled) == [("/spec/method/v_rescale", "v_rescale_unsupported")]


def _short_model(folder: Path, **scheduler: Any) -> None:
    (folder / "scheduler").mkdir(parents=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))


def remember(api: Api, source: HubSource, **facts: Any) -> None:
    """What a worker would have read of the model."""
    known_models.ask(api.parts.store, source)
    known_models.remember(api.parts.store, source, ModelReport.model_validate(facts))


HUB = HubSource(repo_id="owner/tiny", revision="c" * 40)
READ = {
    "pipeline_class": "StableDiffusionPipeline",
    "resolution": 512,
    "prediction_type": "epsilon",
    "num_timesteps": 1000,
}
LAYERS = {"down.0.attn1.to_q": [8, 4], "down.0.attn1.to_out.0": [4, 4], "mid.ff.net.2": [4, 16], "conv": [3, 5, 3, 3]}
MISFIT = {"code": "model_parts_mismatch", "message": "unet/config.json: in_channels is 9; expected 4"}


def hub_spec(api: Api, **changes: Any) -> dict[str, Any]:
    return {**spec_for(api.ready_dataset()), "model": HUB.model_dump(), **changes}


def test_a_model_that_nobody_has_read_is_warned_about_and_a_worker_is_asked_to_read_it(api: Api) -> None:
    answer = api.client.post("/v1/jobs/validate", json={"spec": hub_spec(api)}).json()
    assert answer["valid"]
    assert any("no worker has read the files of the model" in one for one in answer["warnings"])
    assert known_models.claim_unread(api.parts.store) == HUB
    known_models.not_read(api.parts.store, HUB, "the Hub is away")
    warnings = api.client.post("/v1/jobs/validate", json={"spec": hub_spec(api)}).json()["warnings"]
    assert any("could not be read yet: the Hub is away" in one for one in warnings)


@pytest.mark.parametrize(
    ("facts", "changes", "place"),
    [
        ({}, {}, None),
        ({"problem": MISFIT}, {}, ("model", "model_parts_mismatch")),
        ({"layers": LAYERS}, {}, None),
        ({"layers": LAYERS}, {"adapter": {"type": "lora", "target_modules": ["proj"]}}, ("adapter/target_modules", "adapter_target_missing")),
        ({}, {"adapter": {"type": "lora", "text_encoder": {}}}, None),
        ({"pipeline_class": "FluxPipeline"}, {"adapter": {"type": "lora", "text_encoder": {}}}, ("adapter/text_encoder", "text_encoder_unsupported")),
        ({}, {"adapter": {"type": "full", "text_encoder": {}}}, ("adapter/text_encoder", "extra_forbidden")),
        ({"unfit_steps": [20]}, {}, ("evaluation/num_inference_steps", "sampling_steps_unsupported")),
        ({"num_timesteps": 10}, {}, ("evaluation/num_inference_steps", "too_many_sampling_steps")),
    ],
)  # fmt: skip
def test_what_a_worker_read_of_a_model_of_the_hub_decides_before_the_queue(
    api: Api, facts: dict[str, Any], changes: dict[str, Any], place: tuple[str, str] | None
) -> None:
    remember(api, HUB, **{**READ, **facts})
    assert told(api, hub_spec(api, **changes)) == ([] if place is None else [(f"/spec/{place[0]}", place[1])])


def test_the_refusal_of_target_modules_lists_what_there_is(api: Api) -> None:
    remember(api, HUB, **READ, layers=LAYERS)
    spec = hub_spec(api, adapter={"type": "lora", "target_modules": ["proj"]})
    (error,) = api.client.post("/v1/jobs/validate", json={"spec": spec}).json()["errors"]
    assert error["message"].endswith("they end in conv, net.2, to_out.0, to_q")


@pytest.mark.parametrize(
    ("pixels", "code"), [(64, "resolution_unfit"), (128, None), (2048, None), (4096, "resolution_unfit")]
)
def test_a_resolution_is_measured_by_the_models_files_both_ways(api: Api, pixels: int, code: str | None) -> None:
    remember(api, HUB, **READ)
    spec = hub_spec(api)
    spec["method"]["transform"] = {"resolution": pixels}
    assert told(api, spec) == ([] if code is None else [("/spec/method/transform/resolution", code)])


def test_a_model_of_a_family_that_is_not_trained_is_refused_by_its_folder(new_api: NewApi, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text('{"_class_name": "LTXPipeline"}')
    api = new_api(allow_local_paths=True)
    spec = {**spec_for(api.ready_dataset()), "model": {"type": "local", "path": str(tmp_path / "model")}}
    assert told(api, spec) == [("/spec/model", "model_unsupported")]


def test_a_path_that_is_refused_is_not_looked_at(api: Api, tmp_path: Path) -> None:
    spec = {**spec_for(api.ready_dataset()), "model": {"type": "local", "path": str(tmp_path)}}
    assert told(api, spec) == [("/spec/model/path", "local_path_refused")]
    assert known_models.claim_unread(api.parts.store) is None


def test_the_list_of_models_says_what_their_files_say(api: Api) -> None:
    (model,) = api.client.get("/v1/models").json()["data"]
    assert (model["family"], model["is_trained"], model["resolution"]) == ("sd", True, 32)
    assert (model["pipeline_class"], model["prediction_type"]) == ("StableDiffusionPipeline", "epsilon")
    assert model["num_parameters"] == 1_077_572
    assert {"to_q", "to_k", "to_v", "to_out.0"} <= set(model["lora_targets"])
    assert model["default_lora_targets"] == list(FAMILIES["sd"].lora_targets)
    assert model["problem"] is None


@pytest.mark.parametrize(
    ("devices", "device", "is_refused"), [("cpu", "auto", True), ("", "cpu", True), ("cpu, cuda", "auto", False)]
)
def test_half_precision_on_a_cpu_is_refused(new_api: NewApi, devices: str, device: str, is_refused: bool) -> None:
    api = new_api(worker_devices=devices)
    spec = {**spec_for(api.ready_dataset(), precision="fp16"), "resources": {"device": device}}
    assert told(api, spec) == ([("/spec/training/precision", "precision_unsupported")] if is_refused else [])


@pytest.mark.parametrize(
    ("devices", "wanted", "is_refused"),
    [("cpu", "cuda", True), ("cpu, cuda", "cuda", False), ("cuda", "cpu", True), ("cpu", "auto", False), ("", "cuda", False)],
)  # fmt: skip
def test_a_device_that_no_worker_has_is_refused(new_api: NewApi, devices: str, wanted: str, is_refused: bool) -> None:
    api = new_api(worker_devices=devices)
    spec = {**spec_for(api.ready_dataset()), "resources": {"device": wanted}}
    assert told(api, spec) == ([("/spec/resources/device", "device_unavailable")] if is_refused else [])


def test_the_estimate_counts_what_is_trained(api: Api) -> None:
    remember(api, HUB, **READ, layers=LAYERS, num_parameters=1234)

    def trained(**adapter: Any) -> int:
        answer = api.client.post("/v1/jobs/validate", json={"spec": hub_spec(api, adapter=adapter)}).json()
        return answer["estimate"]["num_trainable_parameters"]

    assert trained(type="full") == 1234
    assert trained(type="lora", rank=2, target_modules=["to_q"]) == 2 * (8 + 4)
    assert trained(type="lora", rank=2, target_modules=["conv", "net.2"]) == 2 * (3 + 5 * 9) + 2 * (4 + 16)


@pytest.mark.parametrize(
    ("method", "pointer"),
    [
        ({"type": "dpok", "reward": "brightness"}, "/spec/method"),
        ({"type": "ddpo", "reward": "brightness"}, "/spec/method/num_trained_steps"),
        ({"type": "d3po", "rewards": ["brightness"], "num_trained_steps": 4}, "/spec/method/num_trained_steps"),
        ({"type": "d3po", "rewards": ["brightness"], "num_trained_steps": 2}, None),
        ({"type": "tailorpo", "rewards": ["brightness"], "num_trained_steps": 2}, None),
    ],
)
def test_a_last_step_without_noise_is_known_where_it_would_be_trained(
    api: Api, method: dict[str, Any], pointer: str | None
) -> None:
    remember(api, HUB, **READ, last_step_is_silent=True)
    whole = {"prompts": ["a"], "num_inference_steps": 4, **method}
    spec = {"model": HUB.model_dump(), "method": whole}
    assert told(api, spec) == ([] if pointer is None else [(pointer, "no_noise_to_train_on")])


def read_as(pipeline_class: str, **facts: Any) -> dict[str, Any]:
    return {**READ, "pipeline_class": pipeline_class, "prediction_type": "velocity", **facts}


GUIDED, LARGE = {"training": {"embedded_guidance": 7.0}}, {"transform": {"resolution": 1000}}
DDPO = {"type": "ddpo", "prompts": ["a red circle"], "reward": "brightness", "num_inference_steps": 3}
JUDGED = {"type": "attribute_classifier", "weights": "shapes-reward"}
NOISY = {"least_eta": {3: [0.01, 0.02, 0.5]}}


@pytest.mark.parametrize(
    ("read", "method", "changes", "place"),
    [
        (READ, {}, GUIDED, ("training/embedded_guidance", "embedded_guidance_unsupported")),
        (read_as("StableDiffusion3Pipeline"), {}, GUIDED, ("training/embedded_guidance", "embedded_guidance_unsupported")),
        (read_as("FluxPipeline"), {}, GUIDED, None),
        (read_as("FluxPipeline", resolution_unit=16), LARGE, {}, ("method/transform/resolution", "resolution_unfit")),
        (READ, LARGE, {}, None),
        ({**READ, **NOISY}, {**DDPO, "eta": 0.4}, {}, ("method/num_trained_steps", "no_noise_to_train_on")),
        ({**READ, **NOISY}, {**DDPO, "eta": 0.4, "num_trained_steps": 2}, {}, None),
        ({**READ, **NOISY}, {**DDPO, "eta": 0.5}, {}, None),
        (READ, {**DDPO, "reward": JUDGED}, {}, None),
        (READ, {**DDPO, "reward": JUDGED, "prompts": ["a red circle", "peace"]}, {}, ("method/prompts", "prompt_not_scorable")),
        (READ, {}, {"evaluation": {"rewards": [JUDGED], "prompts": ["peace"]}}, ("evaluation/prompts", "prompt_not_scorable")),
        (READ, {}, {"evaluation": {"rewards": [JUDGED], "prompts": ["a red circle", "peace"], "max_prompts": 1}}, None),
    ],
)  # fmt: skip
def test_what_a_run_would_find_out_late_is_known_before_it(
    api: Api, read: dict[str, Any], method: dict[str, Any], changes: dict[str, Any], place: tuple[str, str] | None
) -> None:
    remember(api, HUB, **read)
    spec = hub_spec(api, **changes)
    spec["method"] = method if "type" in method else {**spec["method"], **method}
    if "type" in method:
        spec = {name: spec[name] for name in ("model", "method")}
    assert told(api, spec) == ([] if place is None else [(f"/spec/{place[0]}", place[1])])


@pytest.mark.parametrize(
    ("layers", "changes", "place"),
    [
        ({"unet.down.0.attn1.to_q": (4, 8)}, {}, None),
        ({"unet.conv": (45, 3)}, {}, None),
        ({"unet.down.7.attn1.to_q": (4, 8)}, {}, ("start/lora/id", "lora_unfit")),
        ({"unet.down.0.attn1.to_q": (4, 9)}, {}, ("start/lora/id", "lora_unfit")),
        ({"text_encoder.layers.0.q_proj": (4, 9)}, {}, None),
        ({"unet.down.0.attn1.to_q": (4, 8)}, {"mode": "train"}, ("adapter/target_modules", "start_unfit")),
        ({"unet.down.0.attn1.to_q": (4, 8), "unet.down.0.attn1.to_out.0": (4, 4)}, {"mode": "train"}, None),
    ],
)
def test_a_lora_is_known_not_to_fit_the_model_before_the_run(
    api: Api, layers: dict[str, Any], changes: dict[str, Any], place: tuple[str, str] | None
) -> None:
    remember(api, HUB, **READ, layers=LAYERS)
    lora = LoraReport(
        format="diffusers", num_layers=1, ranks=[8], alphas=[8.0], changes_text_encoder=False, layers=layers
    )
    spec = hub_spec(api, start={"lora": api.ready_weights(**dict(lora)), **changes})
    assert told(api, spec) == ([] if place is None else [(f"/spec/{place[0]}", place[1])])


def test_layers_that_are_left_out_are_the_familys_in_the_job_and_in_validate(api: Api) -> None:
    remember(api, HUB, **read_as("StableDiffusion3Pipeline"))
    spec = hub_spec(api)
    expected = list(FAMILIES["sd3"].lora_targets)
    assert (
        api.client.post("/v1/jobs/validate", json={"spec": spec}).json()["resolved_spec"]["adapter"]["target_modules"]
        == expected
    )
    assert api.client.post("/v1/jobs", json={"spec": spec}).json()["spec"]["adapter"]["target_modules"] == expected


@pytest.mark.parametrize(
    ("pipeline", "field", "value", "is_far"),
    [
        ("StableDiffusion3Pipeline", "beta", 5000, True),
        ("StableDiffusion3Pipeline", "beta", 2000, False),
        ("StableDiffusionPipeline", "beta", 5000, False),
        ("FluxPipeline", "beta", 10, True),
    ],
)
def test_a_value_far_from_what_the_family_was_published_with_is_warned_of_by_its_name(
    api: Api, pipeline: str, field: str, value: float, is_far: bool
) -> None:
    remember(api, HUB, **read_as(pipeline))
    spec = hub_spec(api)
    spec["method"] = {**spec["method"], field: value}
    warnings = api.client.post("/v1/jobs/validate", json={"spec": spec}).json()["warnings"]
    assert any(f"method.{field} is {value}, which is far" in one for one in warnings) == is_far


def test_what_is_warned_of_by_the_models_family_is_told_beside_an_error_elsewhere(api: Api) -> None:
    remember(api, HUB, **read_as("StableDiffusion3Pipeline"))
    spec = hub_spec(api)
    spec["method"] = {**spec["method"], "beta": 5000, "dataset": {"type": "stored", "id": f"ds_{'0' * 26}"}}
    answer = api.client.post("/v1/jobs/validate", json={"spec": spec}).json()
    assert [one["code"] for one in answer["errors"]] == ["dataset_not_found"]
    assert any("method.beta is 5000, which is far" in one for one in answer["warnings"])
    assert answer["resolved_spec"]["adapter"]["target_modules"] == list(FAMILIES["sd3"].lora_targets)


def test_a_model_that_is_refused_is_not_looked_at_for_warnings(api: Api, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusion3Pipeline"}))
    spec = hub_spec(api, model={"type": "local", "path": str(tmp_path)})
    answer = api.client.post("/v1/jobs/validate", json={"spec": spec}).json()
    assert answer["errors"][0]["pointer"].startswith("/spec/model")
    assert answer["resolved_spec"]["adapter"]["target_modules"] != list(FAMILIES["sd3"].lora_targets)


def test_a_model_that_an_earlier_job_left_is_known_by_what_the_job_began_with(api: Api) -> None:
    remember(api, HUB, **READ, layers=LAYERS)
    before = api.client.post("/v1/jobs", json={"spec": hub_spec(api, adapter={"type": "full"})}).json()["id"]
    attempt = api.claim(before)
    key = outputs_of(api, before, attempt)
    spec = hub_spec(api, model=key, adapter={"type": "lora", "target_modules": ["proj"]})
    assert told(api, spec) == [("/spec/adapter/target_modules", "adapter_target_missing")]


def outputs_of(api: Api, job_id: str, attempt: int) -> str:
    """Id of a whole model that the job saved."""
    event = CheckpointSaved(step=4, path="step-4", kind="full", is_final=True, size_bytes=9)
    file = StoredFile(path="model.safetensors", size_bytes=9, sha256="0" * 64, object_key="k")
    record_event(api.parts.store, job_id, attempt, event, [file])
    return api.checkpoint_id(job_id)


@pytest.mark.parametrize(("processes", "is_refused"), [(None, False), (4, False), (3, True)])
def test_more_processes_than_a_worker_has_are_refused(new_api: NewApi, processes: int | None, is_refused: bool) -> None:
    api = new_api(worker_processes=processes)
    online = {"model": "shapes", "method": {"type": "ddpo", "prompts": ["a"], "reward": "brightness"}}
    in_four = [("/spec/resources/processes", "too_many_processes")] if is_refused else []
    assert told(api, {**online, "resources": {"processes": 4}}) == in_four
    assert told(api, online) == told(api, spec_for(api.ready_dataset())) == []


def test_a_job_that_no_class_of_workers_takes_is_refused(new_api: NewApi) -> None:
    api = new_api(resource_classes="small:1,large:8")
    spec = spec_for(api.ready_dataset())
    assert told(api, {**spec, "resources": {"processes": 8}}) == []
    problem = [("/spec/resources/processes", "no_class_of_workers")]
    assert told(api, {**spec, "resources": {"processes": 16}}) == problem


# --- what it costs -------------------------------------------------------------------------------------------------

SMALL = CardRecord(name="a small processor, 1 threads", device="cpu", memory_bytes=int(0.72 * 2**30))


def test_a_run_that_no_card_holds_is_refused_with_what_would_fit(api: Api) -> None:
    spec = spec_for(api.ready_dataset(), batch_size=512, gradient_accumulation_steps=1)
    assert told(api, spec) == []
    cards.announce(api.parts.store, SMALL)
    (problem,) = api.client.post("/v1/jobs/validate", json={"spec": spec}).json()["errors"]
    assert (problem["pointer"], problem["code"]) == ("/spec/training/batch_size", "does_not_fit")
    assert "activations" in problem["message"]
    assert "training.batch_size 1" in problem["message"]
    assert "training.gradient_checkpointing" in problem["message"]
    assert told(api, spec) == [("/spec/training/batch_size", "does_not_fit")]
    cards.announce(api.parts.store, SMALL.model_copy(update={"name": "a large one", "memory_bytes": 64 * 2**30}))
    assert told(api, spec) == []


def test_a_run_goes_to_the_smallest_cards_that_hold_it_or_is_refused_with_what_would_fit(new_api: NewApi) -> None:
    api = new_api(resource_classes="small:1@1GiB,big:1@3GiB,large:8@3GiB")
    data = api.ready_dataset()

    def class_of_batch(size: int, **changes: object) -> str | None:
        spec = spec_for(data, batch_size=size, gradient_accumulation_steps=1, **changes)
        job = api.client.post("/v1/jobs", json={"spec": spec}).json()["id"]
        found = waiting.class_of_job(api.parts.store, job)
        return found and found.name

    assert [class_of_batch(8), class_of_batch(256)] == ["small", "big"]
    assert class_of_batch(4096, micro_batch="auto") == "small", "where it does not fit as it is, it finds its room"
    too_large = spec_for(data, batch_size=4096, gradient_accumulation_steps=1)
    (problem,) = api.client.post("/v1/jobs/validate", json={"spec": too_large}).json()["errors"]
    assert told(api, too_large) == [("/spec/training/batch_size", "fits_no_class")]
    assert "big, has cards of 3 GiB" in problem["message"]
    assert "training.batch_size 1" in problem["message"]
    shared = {**too_large, "resources": {"processes": 2, "strategy": "fsdp2"}}
    assert "fits_no_class" not in {code for _, code in told(api, shared)}


def test_what_finds_its_room_or_shares_its_weights_is_not_refused_by_one_cards_memory(api: Api) -> None:
    cards.announce(api.parts.store, SMALL)
    large = spec_for(api.ready_dataset(), batch_size=512, gradient_accumulation_steps=1)
    assert "does_not_fit" in {code for _, code in told(api, large)}
    halving = {**large, "training": {**large["training"], "micro_batch": "auto"}}
    assert told(api, halving) == []
    shared = {**large, "resources": {"processes": 2, "strategy": "fsdp2"}}
    assert "does_not_fit" not in {code for _, code in told(api, shared)}


def test_the_estimate_stays_with_the_job_and_follows_what_jobs_were_measured_at(api: Api) -> None:
    cards.announce(api.parts.store, SMALL.model_copy(update={"memory_bytes": 64 * 2**30}))
    spec = spec_for(api.ready_dataset(num_usable_rows=1000))
    first = api.client.post("/v1/jobs", json={"spec": spec}).json()
    assert first["estimate"] == api.client.post("/v1/jobs/validate", json={"spec": spec}).json()["estimate"]
    guessed = first["estimate"]["duration"]
    assert (guessed["card"], guessed["source"]) == (SMALL.name, "guess")
    assert guessed["total"]["low"] < guessed["total"]["expected"] < guessed["total"]["high"]
    assert set(guessed["phases"]) == {"loading", "caching", "training", "evaluating", "saving"}
    cards.learn(api.parts.store, SMALL.name, "sd", {"training": 1e-4})
    measured = api.client.post("/v1/jobs/validate", json={"spec": spec}).json()["estimate"]["duration"]
    assert measured["source"] == "jobs"
    training = measured["phases"]["training"]
    assert training["expected"] == pytest.approx(2 * training["low"], rel=0.02)
    assert api.client.get(f"/v1/jobs/{first['id']}").json()["estimate"] == first["estimate"]
    disk = first["estimate"]["disk"]
    assert disk["checkpoint_bytes"] == 46_592 * 12
    assert disk["cache_bytes"] > 0
