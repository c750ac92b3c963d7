"""A mistake in a spec is told at the field, in a sentence that says what to write; natural short forms are no mistake."""

from typing import Any

import pytest
from pydantic import ValidationError

from alignment_core.spec import JobSpec
from alignment_core.spec.mistakes import MOST, Mistake, in_sentences, mistakes

DATASET = "ds_" + "0" * 26
SHORT = {"model": "sd15", "method": {"type": "diffusion_dpo", "dataset": DATASET}}
LONG = {
    "model": {"type": "catalog", "name": "sd15"},
    "method": {"type": "diffusion_dpo", "dataset": {"type": "stored", "id": DATASET}},
}
ONLINE = {"type": "ddpo", "prompts": ["a red circle"], "reward": {"type": "brightness"}}
TAILORPO = {"type": "tailorpo", "prompts": ["a red circle"], "rewards": [{"type": "brightness"}]}


def found_in(**changes: Any) -> list[Mistake]:
    spec = {**LONG, **changes}
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate(spec)
    return mistakes(caught.value.errors(), spec, JobSpec)


# --- short forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (SHORT, LONG),
        ({"reference": "ema"}, {"reference": {"type": "ema"}}),
        ({"reference": "paper"}, {"reference": {"type": "preset", "name": "paper"}}),
        ({"timesteps": "timestep_aware"}, {"timesteps": {"type": "timestep_aware"}}),
        ({"timesteps": "seed"}, {"timesteps": {"type": "preset", "name": "seed"}}),
        (
            {"timesteps": {"type": "timestep_aware", "sampler": "discounted", "loss_weight": "variance"}},
            {
                "timesteps": {
                    "type": "timestep_aware",
                    "sampler": {"type": "discounted"},
                    "loss_weight": {"type": "variance"},
                }
            },
        ),
        ({"adapter": "full"}, {"adapter": {"type": "full"}}),
        ({"evaluation": {"rewards": ["colorfulness"]}}, {"evaluation": {"rewards": [{"type": "colorfulness"}]}}),
        (
            {"evaluation": {"rewards": [{"type": "clip_score", "model": "clip-l"}]}},
            {"evaluation": {"rewards": [{"type": "clip_score", "model": {"type": "catalog", "name": "clip-l"}}]}},
        ),
    ],
)
def test_a_short_form_is_the_long_one_and_has_its_hash(short: dict[str, Any], long: dict[str, Any]) -> None:
    brief, full = JobSpec.model_validate({**LONG, **short}), JobSpec.model_validate({**LONG, **long})
    assert brief == full
    assert brief.sha256() == full.sha256()
    assert brief.model_dump() == full.model_dump()


def test_short_forms_are_not_in_the_schema() -> None:
    assert "string" not in {one.get("type") for one in JobSpec.model_json_schema()["properties"]["model"]["oneOf"]}


# --- what is said --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "pointer", "message"),
    [
        ({"reference": "emma"}, "/reference", "did you mean 'ema'?"),
        ({"reference": {"type": "emma"}}, "/reference/type", "did you mean 'ema'?"),
        ({"evaluation": {"rewards": ["colourfulness"]}}, "/evaluation/rewards/0", "did you mean 'colorfulness'?"),
        ({"adapter": {"rank": 16}}, "/adapter", 'add "type": "lora"'),
        ({"method": {"prompts": ["a"]}}, "/method", "its `type` is one of tailorpo, d3po, ddpo, dpok"),
        ({"model": 7}, "/model", "expected an object with a `type`, which is one of catalog, hub, local"),
        ({"model": "runwayml/sd"}, "/model", '{"type": "hub", "repo_id": "OWNER/NAME", "revision": COMMIT}'),
        ({"model": {"type": "hub", "repo_id": "a/b", "revision": "main"}}, "/model/revision", "a branch or tag may move"),
        ({"method": "mapo"}, "/method/dataset", "an object whose `type` is one of stored, local, hub"),
        ({"method": {"type": "mapo", "dataset": "pairs.parquet"}}, "/method/dataset", '{"type": "local", "path": FILE}'),
        ({"method": {**ONLINE, "prompts": "a red circle"}}, "/method/prompts", 'put it in brackets, ["..."]'),
        ({"method": {**ONLINE, "eta": 0}}, "/method/eta", "must be greater than 0. DDIM's noise"),
        ({"evaluation": {"rewards": "colorfulness"}}, "/evaluation/rewards", "put it in brackets"),
        ({"lr": 1e-4}, "/lr", "there is training.learning_rate"),
        ({"training": {"steps": "many"}}, "/training/steps", "expected a whole number, not text"),
        ({"training": None}, "/training", "expected an object, not null"),
        ({"training": {"learning_rate": 10**400}}, "/training/learning_rate", "the number is too large"),
        ({"seed": 1e30}, "/seed", "the number is too large"),
        ({"resources": {"device": "gpu"}}, "/resources/device", "did you mean 'cuda'?"),
        ({"evaluation": {"prompts": []}}, "/evaluation/prompts", "expected at least 1 entry; there are 0"),
        ({"adapter": {"type": "lora", "target_modules": [""]}}, "/adapter/target_modules/0", "such as to_q or to_out.0"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_with_its_remedy(changes: dict[str, Any], pointer: str, message: str) -> None:
    (found,) = found_in(**changes)
    assert found.pointer == pointer
    assert message in found.message


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"training": {"steps": 10, "warmup_steps": 11}}, "/training/warmup_steps"),
        ({"method": {**LONG["method"], "label_smoothing": 0.1}}, "/method/label_smoothing"),
        ({"method": {"type": "diffusion_kto", "dataset": DATASET}, "training": {"batch_size": 4}}, "/training/batch_size"),
        ({"method": {"type": "mapo", "dataset": DATASET}, "reference": "ema"}, "/reference"),
        ({"method": ONLINE, "training": {"validate_every": 5}}, "/training/validate_every"),
        ({"method": {**ONLINE, "num_trained_steps": 30}}, "/method/num_trained_steps"),
        ({"method": {**ONLINE, "num_inference_steps": 7}, "training": {"batch_size": 5}}, "/training/batch_size"),
        ({"method": ONLINE, "timesteps": {"type": "timestep_aware", "reward_scale": "minmax_inv_sqrt_snr"}}, "/timesteps/reward_scale"),
        ({"method": ONLINE, "timesteps": "paper"}, "/timesteps"),
        ({"method": TAILORPO, "reference": {"type": "ema", "guard": {"metric": "mse_gap"}}}, "/reference/guard/metric"),
        ({"method": {**TAILORPO, "guidance": {}, "rewards": ["jpeg_size"]}}, "/method/rewards/0"),
        ({"method": {**TAILORPO, "guidance": {}, "rewards": ["brightness", "symmetry"]}}, "/method/rewards"),
        ({"reference": {"type": "ema", "ref_rank_cap": 8}}, "/reference/ref_rank_cap"),
        ({"reference": {"type": "hard_copy", "offload_initial": True}}, "/reference/offload_initial"),
        ({"evaluation": {"rewards": [{"type": "weighted_sum", "parts": [{"weight": 1, "reward": "brightness"}] * 2}]}}, "/evaluation/rewards/0/parts"),
        ({"evaluation": {"every": 5}}, "/evaluation/every"),
        ({"checkpoints": {"result": "best"}}, "/checkpoints/result"),
        ({"evaluation": {"rewards": ["brightness", {"type": "symmetry", "name": "diversity"}]}}, "/evaluation/rewards/1/name"),
    ],
)  # fmt: skip
def test_a_rule_between_fields_points_at_a_field(changes: dict[str, Any], pointer: str) -> None:
    (found,) = found_in(**changes)
    assert found.pointer == pointer


@pytest.mark.parametrize("dead", ["jpeg_size", {"type": "remote", "url": "https://a.example/"}])
def test_guidance_is_refused_where_any_part_of_the_reward_has_no_gradient(dead: Any) -> None:
    parts = [{"weight": 1, "reward": "brightness"}, {"weight": 1, "reward": dead}]
    (found,) = found_in(method={**TAILORPO, "guidance": {}, "rewards": [{"type": "weighted_sum", "parts": parts}]})
    assert "has none" in found.message


def test_a_hundred_mistakes_are_told_and_the_rest_counted() -> None:
    found = found_in(**{f"f{number}": 1 for number in range(1000)})
    assert len(found) == MOST
    assert found[-1].message.startswith("and 901 more")


def test_a_long_list_of_wrong_entries_is_one_mistake() -> None:
    (found,) = found_in(method={**ONLINE, "prompts": [7] * 100_000})
    assert (found.pointer, found.message) == ("/method/prompts/0", "expected text, not a number")


def test_names_are_cut_and_told_in_unicode() -> None:
    (long,) = found_in(**{"x" * 100_000: 1})
    assert len(long.pointer) < 200
    (half,) = found_in(**{"\ud800": 1})
    assert half.pointer == "/\\ud800"
    (kind,) = found_in(model={"type": "y" * 100_000})
    assert len(kind.message) < 300


def test_the_same_sentences_are_told_of_a_file() -> None:
    spec = {**LONG, "reference": "emma", "seed": -1}
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate(spec)
    told = in_sentences(caught.value, spec, JobSpec).splitlines()
    assert told == [f"{one.pointer}: {one.message}" for one in found_in(reference="emma", seed=-1)]


def test_an_address_beyond_ascii_is_told_what_one_looks_like() -> None:
    remote = {"type": "remote", "url": "https://r\u0435wards.example.org/"}  # a Cyrillic letter
    (found,) = found_in(evaluation={"rewards": [remote]})
    assert "in ASCII" in found.message


def test_a_method_called_by_its_last_word_is_not_taken_for_another() -> None:
    with pytest.raises(ValidationError, match="did you mean 'diffusion_dpo'"):
        JobSpec.model_validate({"model": "shapes", "method": {"type": "dpo"}})


def test_a_field_of_another_place_is_told_where_it_is_and_not_taken_for_one_that_looks_alike() -> None:
    (found,) = found_in(resolution=4096)
    assert "method.transform.resolution" in found.message
