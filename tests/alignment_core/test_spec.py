"""What may be asked for, and how a mistake is told."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from alignment_core.spec import JobSpec, warnings_of

MINIMAL = {
    "model": {"type": "local", "path": "model"},
    "method": {"type": "diffusion_dpo", "dataset": {"type": "local", "path": "pairs.parquet"}},
}


def error_of(changes: dict[str, object]) -> tuple[str, str]:
    """Where the first error is, and what it says."""
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate({**MINIMAL, **changes})
    first = caught.value.errors()[0]
    return ".".join(map(str, first["loc"])), first["msg"]


def method(**changes: object) -> dict[str, object]:
    return {"method": {**MINIMAL["method"], **changes}}


def test_a_minimal_spec_has_the_published_defaults() -> None:
    spec = JobSpec.model_validate(MINIMAL).resolved()
    assert spec.method.beta == 5000
    assert spec.training.learning_rate == 1e-5
    assert spec.adapter.type == "lora"
    assert (spec.adapter.rank, spec.adapter.alpha) == (8, 8.0)


def test_a_full_fine_tune_has_the_launchers_learning_rate() -> None:
    spec = JobSpec.model_validate({**MINIMAL, "adapter": {"type": "full"}}).resolved()
    assert spec.training.learning_rate == 2.048e-5


@pytest.mark.parametrize(
    ("changes", "place", "message"),
    [
        ({"sead": 1}, "sead", "Extra inputs are not permitted"),
        ({"model": {"type": "local", "path": "a\0b"}}, "model.local.path", "String should match pattern"),
        (method(beta=-1), "method.beta", "greater than 0"),
        (method(beta=float("nan")), "method.beta", "finite number"),
        (
            method(loss="sigmoid", label_smoothing=0.1),
            "method",
            "label_smoothing is read by the losses cdpo and robust",
        ),
        (method(loss="ipo", dmpo_alpha=0.1), "method", "dmpo_alpha is read by the loss dmpo"),
        (
            method(dataset={"type": "stored", "id": "../../etc"}),
            "method.dataset.stored.id",
            "String should match pattern",
        ),
        (
            {"model": {"type": "hub", "repo_id": "a/b", "revision": "main"}},
            "model.hub.revision",
            "String should match pattern",
        ),
        (
            {"model": {"type": "hub", "repo_id": "../x", "revision": "0" * 40}},
            "model.hub.repo_id",
            "String should match pattern",
        ),
        ({"training": {"steps": 10, "warmup_steps": 11}}, "training", "warmup_steps (11) is larger than steps (10)"),
        (
            {"evaluation": {"rewards": [{"type": "brightness"}] * 2}},
            "evaluation.rewards",
            "reward names must be unique",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place(changes: dict[str, object], place: str, message: str) -> None:
    where, what = error_of(changes)
    assert where == place
    assert message in what


def test_resolving_twice_changes_nothing() -> None:
    once = JobSpec.model_validate({**MINIMAL, **method(loss="cdpo")}).resolved()
    assert once.method.label_smoothing == 0.1
    assert once.resolved() == once
    assert JobSpec.model_validate(once.model_dump(mode="json")) == once


def test_the_hash_is_that_of_the_meaning_and_not_of_the_spelling() -> None:
    plain = JobSpec.model_validate(MINIMAL)
    assert plain.sha256() == plain.resolved().sha256()
    assert plain.sha256() == JobSpec.model_validate({**MINIMAL, "seed": 0}).sha256()
    assert plain.sha256() != JobSpec.model_validate({**MINIMAL, "seed": 1}).sha256()


def test_small_batches_and_missing_rewards_are_warned_about() -> None:
    spec = JobSpec.model_validate({**MINIMAL, "training": {"batch_size": 4, "gradient_accumulation_steps": 1}})
    warnings = " ".join(warnings_of(spec))
    assert "4 pairs per optimiser step" in warnings
    assert "evaluation.rewards is empty" in warnings


def test_the_spec_can_be_read_without_torch() -> None:
    code = "import sys, alignment_core.spec, alignment_core.events, alignment_core.reports; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
