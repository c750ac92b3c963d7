"""The form of a spec and the spec of a form: nothing is lost between them, and only what was changed is written."""

import json
import re
from typing import Any

import pytest

from alignment_core.spec import JobSpec, MethodSpec, RewardSpec
from service.api.catalog import members
from service.api.examples import REQUIRED, STABLE_DIFFUSION, example_of
from service.web.job_form import parts_of_form, reading_of
from service.web.offers import Known, offers_of
from service.web.presets import PRESETS, laid_over
from service.web.same_elsewhere import elsewhere
from service.web.spec_control import Control
from service.web.spec_form import LOCAL_PATHS, controls_of, typed_as
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
        "f.evaluation.prompts": "[1",
    }
    spec = spec_of(typed)
    assert (spec["training"], spec["method"]["beta"]) == ({"steps": "many"}, "1e999")
    assert spec["evaluation"] == {"rewards": "{", "prompts": ["[1"]}
    shown = {one.name: one.value for one in leaves(controls_of(spec, {}))}
    assert (shown["f.evaluation.rewards"], shown["f.evaluation.prompts"]) == ('"{"', '"[1"')


def test_a_list_of_rewards_is_a_choice_for_each_and_a_place_for_one_more():
    rewards = [{"type": "colorfulness"}, {"type": "pick_score", "model": {"type": "catalog", "name": "eyes"}}]
    offers = {"/evaluation/rewards/1/model/name": [("eyes", "eyes"), ("others", "others")]}
    controls = controls_of({**BASE, "evaluation": {"rewards": rewards}}, offers)
    by_path = {".".join(one.path): one for one in leaves(controls)}
    first, second, more = by_path["evaluation.rewards"].children
    assert [one.value for one in (first, second, more)] == ["colorfulness", "pick_score", ""]
    assert [one.label for one in (first, more)] == ["Reward 1", "Reward 3"]
    assert dict(first.choices)["pick_score"] == "PickScore"
    assert (first.choices[0], more.choices[0]) == (("", "leave out"), ("", "add one"))
    assert by_path["evaluation.rewards.1.model.name"].choices == offers["/evaluation/rewards/1/model/name"]
    typed = typed_as(controls)
    without_first = spec_of({**typed, "f.evaluation.rewards.0.type": "", "f.evaluation.rewards.2.type": "brightness"})
    assert without_first["evaluation"]["rewards"] == [rewards[1], {"type": "brightness"}]
    assert spec_of({**typed, **{f"f.evaluation.rewards.{at}.type": "" for at in range(3)}}) == BASE


def test_parts_of_a_reward_are_taken_where_they_are_ticked():
    parts = [{"reward": {"type": "brightness"}, "weight": -2.0}]
    spec = {**BASE, "evaluation": {"rewards": [{"type": "weighted_sum", "parts": parts}]}}
    typed = typed_as(controls_of(spec, {}))
    assert spec_of(typed) == spec
    place = "f.evaluation.rewards.0.parts"
    more = {**typed, f"{place}.1._on": "true", f"{place}.1.weight": "3", f"{place}.1.reward.type": "symmetry"}
    (reward,) = spec_of(more)["evaluation"]["rewards"]
    assert [(one["reward"]["type"], one["weight"]) for one in reward["parts"]] == [
        ("brightness", -2.0),
        ("symmetry", 3.0),
    ]


def test_no_list_grows_beyond_what_the_schema_allows():
    controls = controls_of({**BASE, "evaluation": {"rewards": [{"type": "brightness"}] * 16}}, {})
    by_path = {".".join(one.path): one for one in leaves(controls)}
    assert len(by_path["evaluation.rewards"].children) == 16
    assert by_path["evaluation.rewards"].limits == "at most 16"


def test_a_prompt_set_stands_for_lines_which_are_kept():
    prompts = {"type": "prompt_set", "id": "ps_" + 26 * "1"}
    offers = {"/evaluation/prompts": [("", "the lines below"), (prompts["id"], "held out (12)")]}
    spec = {**BASE, "evaluation": {"prompts": prompts}}
    typed = typed_as(controls_of(spec, offers))
    assert typed["f.evaluation.prompts._set"] == prompts["id"]
    assert spec_of(typed) == spec
    asked = reading_of({**typed, "view": "form", "f.evaluation.prompts": "a cat\r\na dog"})
    assert asked.spec == spec
    form = parts_of_form(asked, Known(prompt_sets=[{"id": prompts["id"], "name": "held out", "num_prompts": 12}]), [])
    (shown,) = [one for one in form.common if one.path == ("evaluation", "prompts")]
    assert (shown.picked, shown.value) == (prompts["id"], "a cat\na dog")
    lines = spec_of({**typed, "f.evaluation.prompts._set": "", "f.evaluation.prompts": "a cat\n"})
    assert lines["evaluation"]["prompts"] == ["a cat"]


def test_a_choice_of_words_is_a_choice_however_the_schema_says_it():
    by_path = {".".join(one.path): one for one in leaves(controls_of(BASE, {}))}
    assert [name for name, _ in by_path["training.precision"].choices] == ["auto", "fp32", "bf16", "fp16"]
    assert "json" not in {one.kind for one in by_path.values()}


def test_paths_on_the_server_are_offered_where_they_are_read():
    def kinds(offers: dict[str, Any], model: Any = STABLE_DIFFUSION) -> set[str]:
        (model,) = [one for one in controls_of({**BASE, "model": model}, offers) if one.path == ("model",)]
        return {name for name, _ in model.choices}

    assert {"local", "single_file"} & kinds({}) == set()
    assert {"local", "single_file"} <= kinds({LOCAL_PATHS: [("local", "local")]})
    assert "local" in kinds({}, {"type": "local", "path": "/models/mine"})


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


ID = re.compile(r"\bids?\b|name of the entry|where they are|/v1/", re.IGNORECASE)


def all_offered(method: str) -> Known:
    """A server that has something to choose wherever names may be offered."""
    sets = [{"id": "set_1", "name": "people", "filename": "a.txt", "num_prompts": 3}]
    rewards = [one.model_fields["type"].default for one in members(RewardSpec)]
    return Known(
        datasets=[{"id": "ds_1", "name": f"pairs for {method}", "filename": "a.tar"}],
        models=[
            {
                "id": name,
                "description": "",
                "is_trained": family != "clip",
                "family": family,
                "source": {"type": "catalog", "name": name},
            }
            for name, family in (("shapes", "sd"), ("clip-l", "clip"))
        ],
        rewards=[{"id": reward, "weights": [{"name": "published"}]} for reward in rewards],
        prompt_sets=sets,
    )


@pytest.mark.parametrize("method", METHODS)
def test_where_a_name_is_chosen_the_help_speaks_of_what_it_stands_for_and_of_no_id(method: str):
    known = all_offered(method)
    rewards = [{"type": "clip_score", "model": {"type": "catalog", "name": "clip-l"}}]
    rewards += [
        {"type": "aesthetic", "model": rewards[0]["model"], "weights": {"type": "catalog", "name": "published"}}
    ]
    spec = example_of(METHODS[method], {"type": "catalog", "name": "shapes"})
    spec["evaluation"] = {"rewards": rewards, "prompts": {"type": "stored", "id": "set_1"}}
    if "dataset" in spec["method"]:
        spec["method"]["dataset"] = {"type": "stored", "id": "ds_1"}
    offers = offers_of(spec, known)
    chosen = [one for one in leaves(controls_of(spec, offers)) if offers.get(one.pointer) and one.choices]
    pointers = {one.pointer for one in chosen}
    assert {"/model/name", "/evaluation/prompts", "/evaluation/rewards/1/model/name"} <= pointers
    assert "/method/dataset/id" in pointers or "/method/prompts" in pointers
    assert {one.pointer: one.about for one in chosen if not one.about or ID.search(one.about)} == {}
    without = {one.pointer: one.about for one in leaves(controls_of(spec, {}))}
    assert ID.search(without["/model/name"]), "where it is typed it is an id or a name"


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
