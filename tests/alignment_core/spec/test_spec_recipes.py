"""What is left out of `training` fits every method, says where it comes from, and is warned of where it is far off."""

from typing import Any

import pytest

from alignment_core.spec import JobSpec
from alignment_core.spec.warnings import warnings_of

DATA = {"dataset": {"type": "local", "path": "data.parquet"}}
DRAWN = {"prompts": ["a red circle"]}
BRIGHTNESS = {"type": "brightness"}
REQUIRED: dict[str, dict[str, Any]] = {
    "diffusion_dpo": DATA,
    "diffusion_kto": DATA,
    "mapo": DATA,
    "tailorpo": {**DRAWN, "rewards": [BRIGHTNESS]},
    "d3po": {**DRAWN, "rewards": [BRIGHTNESS]},
    "ddpo": {**DRAWN, "reward": BRIGHTNESS},
    "dpok": {**DRAWN, "reward": BRIGHTNESS},
}
ADAPTERS = ["lora", "full"]
ONLINE = ["d3po", "ddpo", "dpok"]


def spec_of(
    method: str, adapter: str = "lora", /, *, training: dict[str, Any] | None = None, **of_method: Any
) -> JobSpec:
    return JobSpec.model_validate(
        {
            "model": {"type": "local", "path": "model"},
            "method": {"type": method, **REQUIRED[method], **of_method},
            "adapter": {"type": adapter},
            "training": training or {},
        }
    )


def told_of_rate(spec: JobSpec) -> list[str]:
    return [warning for warning in warnings_of(spec) if "learning_rate" in warning]


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("method", REQUIRED)
def test_the_required_fields_alone_are_a_whole_spec(method: str, adapter: str) -> None:
    spec = spec_of(method, adapter)
    resolved = spec.resolved()
    training = resolved.training
    assert None not in (training.batch_size, training.gradient_accumulation_steps, training.warmup_steps)
    assert training.learning_rate is not None
    assert training.learning_rate > 0
    assert training.learning_rate_source
    assert spec.examples_per_step == resolved.examples_per_step == 64
    assert resolved.resolved() == resolved
    assert JobSpec.model_validate(resolved.model_dump(mode="json")) == resolved
    assert spec.sha256() == resolved.sha256()
    assert not told_of_rate(spec)


@pytest.mark.parametrize("preset", ["paper", "seed", "adaptive"])
@pytest.mark.parametrize("part", ["reference", "timesteps"])
@pytest.mark.parametrize("method", REQUIRED)
def test_presets_fit_every_method_that_has_what_they_move(method: str, part: str, preset: str) -> None:
    without = {"reference": ("mapo", "ddpo"), "timesteps": ("ddpo",) if preset == "paper" else ()}[part]
    if method in without:
        return
    spec = spec_of(method).model_dump(mode="json") | {part: {"type": "preset", "name": preset}}
    assert JobSpec.model_validate(spec).resolved()


@pytest.mark.parametrize("num_prompts", [1, 3, 10, 17])
@pytest.mark.parametrize("num_steps", [7, 25, 50])
@pytest.mark.parametrize("method", ONLINE)
def test_a_batch_that_was_left_out_divides_any_iteration(method: str, num_steps: int, num_prompts: int) -> None:
    samples: dict[str, Any] = {} if method == "d3po" else {"samples_per_prompt": 2}
    spec = spec_of(method, num_inference_steps=num_steps, prompts_per_iteration=num_prompts, **samples)
    assert 1 <= spec.examples_per_step <= 64
    assert spec.steps_per_turn >= 1
    told = spec.resolved().training
    assert (told.batch_size, told.gradient_accumulation_steps) == (spec.batch_size, spec.accumulation)


def test_a_batch_that_was_typed_is_kept_or_refused() -> None:
    training = {"batch_size": 2}
    assert spec_of("diffusion_kto", training={"batch_size": 16}).batch_size == 16
    assert spec_of("diffusion_dpo", training=training).batch_size == 2
    with pytest.raises(ValueError, match=r"batch_size \(2\) is too small for diffusion_kto"):
        spec_of("diffusion_kto", training=training)
    with pytest.raises(ValueError, match=r"\(64\) does not divide them"):
        spec_of("d3po", training={"batch_size": 4, "gradient_accumulation_steps": 16}, num_inference_steps=7)


@pytest.mark.parametrize(
    ("method", "steps", "warmup"),
    [("diffusion_dpo", 2000, 500), ("diffusion_dpo", 40, 10), ("diffusion_dpo", 3, 0), ("diffusion_kto", 20_000, 200)],
)
def test_the_warm_up_is_the_recipes_and_at_most_a_quarter_of_the_run(method: str, steps: int, warmup: int) -> None:
    assert spec_of(method, "full", training={"steps": steps}).resolved().training.warmup_steps == warmup


def test_who_gives_the_learning_rate_gives_its_warm_up() -> None:
    given = spec_of("diffusion_dpo", "full", training={"learning_rate": 1e-6}).resolved().training
    assert (given.warmup_steps, given.learning_rate_source) == (0, "given in the spec")
    both = spec_of("diffusion_dpo", "full", training={"learning_rate": 1e-6, "warmup_steps": 7}).resolved()
    assert both.training.warmup_steps == 7


def test_a_source_follows_the_number_and_not_what_was_sent() -> None:
    resolved = spec_of("diffusion_dpo", "full").resolved().model_dump(mode="json")
    resolved["training"]["learning_rate"] = 2e-6
    again = JobSpec.model_validate(resolved).resolved().training
    assert again.learning_rate_source == "given in the spec"


def test_a_learning_rate_far_above_its_recipe_is_warned_of() -> None:
    (told,) = told_of_rate(spec_of("diffusion_dpo", "full", training={"learning_rate": 2.048e-5}))
    assert "2.048e-05 is 32 times 6.4e-07" in told
    large = {"learning_rate": 2.048e-5, "batch_size": 16, "gradient_accumulation_steps": 128}
    assert not told_of_rate(spec_of("diffusion_dpo", "full", training=large))
    assert not told_of_rate(spec_of("diffusion_dpo", "lora", training={"learning_rate": 5e-4}))


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("method", REQUIRED)
def test_every_method_warns_of_a_rate_a_thousand_times_its_own(method: str, adapter: str) -> None:
    usual = spec_of(method, adapter).resolved().training.learning_rate
    assert usual is not None
    assert told_of_rate(spec_of(method, adapter, training={"learning_rate": min(1.0, 1000 * usual)}))
