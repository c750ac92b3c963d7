"""What could never end well is said before the queue: by `validate`, and by the job that would have been."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from service.store.model_files import read_model_files
from tests.service.api.conftest import NewApi
from tests.service.api.world import Api, spec_for

DEMO_MODEL = Path(__file__).parents[3] / "demo" / "assets" / "model"
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


@pytest.mark.parametrize(("pixels", "says"), [(32, "nothing"), (64, "warning"), (128, "warning"), (4096, "error")])
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


@pytest.mark.parametrize(
    "content", [b"", b"\x01", struct.pack("<Q", 2**60), struct.pack("<Q", 5) + b"{nope", b"x" * 100]
)
def test_a_model_that_cannot_be_read_here_is_left_to_the_run(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(content)
    assert read_model_files(tmp_path).layers is None
    assert read_model_files(tmp_path / "nowhere").layers is None


def test_the_layers_read_are_those_that_a_lora_can_have() -> None:
    from diffusers import UNet2DConditionModel
    from torch import nn

    unet = UNet2DConditionModel.from_pretrained(DEMO_MODEL / "unet")
    layers = {name for name, module in unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}
    assert read_model_files(DEMO_MODEL).layers == layers


@pytest.mark.parametrize(
    ("devices", "wanted", "is_refused"),
    [("cpu", "cuda", True), ("cpu, cuda", "cuda", False), ("cuda", "cpu", True), ("cpu", "auto", False), ("", "cuda", False)],
)  # fmt: skip
def test_a_device_that_no_worker_has_is_refused(new_api: NewApi, devices: str, wanted: str, is_refused: bool) -> None:
    api = new_api(worker_devices=devices)
    spec = {**spec_for(api.ready_dataset()), "resources": {"device": wanted}}
    assert told(api, spec) == ([("/spec/resources/device", "device_unavailable")] if is_refused else [])
