"""The form of a spec and the spec of a form: nothing is lost between them, and only what was changed is written."""

import json
from typing import Any

import pytest

from alignment_core.spec import JobSpec, MethodSpec
from service.api.catalog import members
from service.api.examples import REQUIRED, STABLE_DIFFUSION, example_of
from service.web.job_form import reading_of
from service.web.presets import PRESETS, laid_over
from service.web.same_elsewhere import elsewhere
from service.web.spec_form import Control, controls_of, typed_as
from service.web.spec_schema import filled, spec_schema
from service.web.spec_typed import spec_of

METHODS = {member.model_fields["type"].default: member for member in members(MethodSpec)}
DPO = {"type": "diffusion_dpo", "dataset": REQUIRED["dataset"]}
BASE: dict[str, Any] = {"model": STABLE_DIFFUSION, "method": DPO}


def leaves(controls: list[Control]) -> list[Control]:
    return [found for one in controls for found in (one, *leaves(list(one.children)))]


def again(spec: dict[str, Any]) -> dict[str, Any]:
    return spec_of(typed_as(controls_of(spec, {})))


@pytest.mark.parametrize("method", METHODS)
def test_the_example_of_every_method_goes_through_the_form_unchanged(method: str):
    spec = example_of(METHODS[method], STABLE_DIFFUSION)
    spec["training"] = {"batch_size": 16}
    made = again(spec)
    assert filled(spec_schema(), made) == filled(spec_schema(), spec)
    assert JobSpec.model_validate(made) == JobSpec.model_validate(spec)


@pytest.mark.parametrize("method", METHODS)
def test_a_resolved_spec_is_the_same_job_after_the_form_has_left_out_its_defaults(method: str):
    spec = JobSpec.model_validate(example_of(METHODS[method], STABLE_DIFFUSION)).model_dump(mode="json")
    made = again(spec)
    assert JobSpec.model_validate(made) == JobSpec.model_validate(spec)
    assert "guards" not in made
    assert "resources" not in made


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 7},
        {"adapter": {"type": "lora", "rank": 4, "text_encoder": {}}},
        {"adapter": {"type": "full"}},
        {"guards": {"diversity": {"min_ratio": 0.5}}},
        {"guards": {"diversity": None}},
        {"start": {"lora": {"type": "stored", "id": "ds_" + 26 * "0"}, "mode": "train"}},
        {"timesteps": {"type": "timestep_aware", "sampler": {"type": "logit_normal"}}},
        {
            "evaluation": {
                "rewards": ["colorfulness", {"type": "brightness", "name": "light"}],
                "prompts": ["[a]", "b\nc", '"d"', " e"],
            }
        },
        {"evaluation": {"prompts": {"type": "prompt_set", "id": "ps_" + 26 * "0"}}},
        {"training": {"learning_rate": 1e-06, "reference_cache": {"draws": 3}, "start_checks": False}},
    ],
)
def test_what_differs_from_a_default_is_written_and_nothing_else(changed: dict[str, Any]):
    assert again({**BASE, **changed}) == {**BASE, **changed}


def test_what_cannot_be_read_stays_as_it_was_typed():
    typed = typed_as(controls_of(BASE, {})) | {
        "f.training.steps": "many",
        "f.method.beta": "1e999",
        "f.evaluation.rewards": "{",
    }
    spec = spec_of(typed)
    assert (spec["training"], spec["method"]["beta"]) == ({"steps": "many"}, "1e999")
    assert spec["evaluation"]["rewards"] == ["{"]


def test_every_control_has_its_range_its_default_and_what_it_is_for():
    by_path = {".".join(one.path): one for one in leaves(controls_of(BASE, {}))}
    steps = by_path["training.steps"]
    assert (steps.kind, steps.attributes["min"], steps.attributes["max"], steps.attributes["step"]) == (
        "integer",
        "1",
        "1000000",
        "1",
    )
    assert "default 2,000" in steps.limits
    assert by_path["method.beta"].about.startswith("Canonical beta")
    assert [name for name, _ in by_path["method.loss"].choices][:2] == ["sigmoid", "hinge"]
    assert by_path["method.half_factor"].kind == "boolean"
    assert len({one.id for one in by_path.values()}) == len(by_path)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda one: one.id)
def test_a_preset_makes_a_spec_that_holds(preset: Any):
    method = example_of(METHODS[preset.method or "diffusion_dpo"], STABLE_DIFFUSION)["method"]
    typed = {**BASE, "method": method, "training": {"learning_rate": 0.5}, "seed": 3}
    spec = JobSpec.model_validate(laid_over(typed, preset.sets))
    assert spec.seed == 3, "what a preset says nothing of stays"
    assert preset.id == "quick" or spec.training.learning_rate != 0.5


def test_json_that_is_none_is_told_and_kept():
    for text in ("{", "[1]", "[" * 100_000):
        asked = reading_of({"spec": text, "view": "json"})
        assert asked.problem is not None
        assert asked.written == text


def test_the_same_job_elsewhere_is_the_same_job(tmp_path: Any):
    import shlex

    from attune.specs import read_job

    spec = {**BASE, "training": {"learning_rate": 1e-05}, "evaluation": {"prompts": ['it\'s a "cat"', "yes", "über"]}}
    found = elsewhere(spec, "a: name", "", "http://localhost", keys=True)
    path = tmp_path / "job.yaml"
    path.write_text(found.yaml, encoding="utf-8")
    job = read_job(path)
    assert (job.spec, job.name) == (spec, "a: name")
    words = shlex.split(found.curl)
    assert json.loads(words[-1])["spec"] == spec
    code: dict[str, Any] = {}
    exec(found.python.split("\n\n", 1)[1].rsplit("\njob", 1)[0], code)
    assert code["spec"] == spec
