"""What the specs of Diffusion-KTO and MaPO take, what they stand for, and what they refuse with a reason."""

from typing import Any

import pytest
from pydantic import ValidationError

from alignment_core.spec import JobSpec
from alignment_core.spec.warnings import warnings_of

DATA = {"type": "local", "path": "data.parquet"}


def spec_of(method: dict[str, Any], **parts: Any) -> JobSpec:
    spec = {"model": {"type": "local", "path": "model"}, "method": {"dataset": DATA, **method}, **parts}
    return JobSpec.model_validate({"training": {"batch_size": 8}, **spec})


def test_defaults_are_the_published_ones() -> None:
    kto, mapo = (
        spec_of({"type": kind}).resolved().method.model_dump(exclude={"dataset", "transform"})
        for kind in ("diffusion_kto", "mapo")
    )
    assert (kto["beta"], kto["utility"], kto["baseline"]) == (1000, "sigmoid", "batch_mean")
    assert (kto["like_probability"], kto["caption_dropout"]) == (0.8, 0.2)
    assert (mapo["beta"], mapo["kappa"], mapo["logit_scale"], mapo["ties"]) == (0.1, 0.5, 1000, "drop")


@pytest.mark.parametrize(
    ("kind", "adapter", "rate"),
    [("diffusion_kto", "lora", 1e-5), ("diffusion_kto", "full", 1e-7), ("mapo", "lora", 1e-5), ("mapo", "full", 1e-5)],
)
def test_a_learning_rate_left_out_is_the_methods_own(kind: str, adapter: str, rate: float) -> None:
    assert spec_of({"type": kind}, adapter={"type": adapter}).resolved().training.learning_rate == rate


STAT = {"type": "timestep_aware", "loss_weight": {"type": "variance", "stat_against": "initial"}}


@pytest.mark.parametrize(
    ("method", "parts", "message"),
    [
        ({"type": "mapo"}, {"reference": {"type": "ema"}}, "mapo has no reference model: reference must be frozen"),
        ({"type": "mapo"}, {"timesteps": STAT}, "stat_against must be reference for mapo"),
        ({"type": "diffusion_kto"}, {"training": {"batch_size": 7}}, "training.batch_size \\(7\\) is too small"),
        ({"type": "diffusion_kto", "like_probability": 1.5}, {}, "less than or equal to 1"),
        ({"type": "diffusion_kto", "baseline": "median"}, {}, "'batch_mean', 'class_mean' or 'mismatched'"),
    ],
    ids=["moving reference", "signal against initial", "small batch", "probability", "baseline"],
)
def test_what_makes_no_sense_is_refused_with_the_reason(
    method: dict[str, Any], parts: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        spec_of(method, **parts)


def test_settings_that_teach_nothing_are_warned_of() -> None:
    only_likes = warnings_of(spec_of({"type": "diffusion_kto", "like_probability": 1, "beta": 0.1}))
    assert any("liked images alone" in warning for warning in only_likes)
    assert any("language-model values" in warning for warning in only_likes)
    assert any("drowns" in warning for warning in warnings_of(spec_of({"type": "mapo", "beta": 5000})))
