"""What may be asked for, and how a mistake is told."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from alignment_core.spec import EvaluationSpec, JobSpec, LoraAdapter
from alignment_core.spec.families import FAMILIES, FamilyName
from alignment_core.spec.warnings import warnings_of

MINIMAL = {
    "model": {"type": "local", "path": "model"},
    "method": {"type": "diffusion_dpo", "dataset": {"type": "local", "path": "pairs.parquet"}},
}

HASH_OF_MINIMAL = "a9e44a14c335616849bba4cd2b6e803647c8f961081a56b6207fc61bc3bd9d50"  # since before flow matching
HASH_OF_REMOTE = "c0d49b16e49a404b77b92df8e7d09260ee4d5ecf93b3098918354821a778b45e"  # since before a server's version


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


@pytest.mark.parametrize(("accumulation", "rate"), [(1, 4e-8), (16, 6.4e-7), (512, 2.048e-5)])
def test_a_full_fine_tune_has_the_launchers_learning_rate_for_its_batch(accumulation: int, rate: float) -> None:
    training = {"batch_size": 4, "gradient_accumulation_steps": accumulation}
    spec = JobSpec.model_validate({**MINIMAL, "adapter": {"type": "full"}, "training": training}).resolved()
    assert spec.training.learning_rate == pytest.approx(rate, rel=1e-12)
    assert spec.training.warmup_steps == 500
    told = spec.training.learning_rate_source
    assert told == f"the released Diffusion-DPO launcher: 1e-08 x {4 * accumulation} examples an update"


@pytest.mark.parametrize(
    ("changes", "place", "message"),
    [
        ({"sead": 1}, "sead", "Extra inputs are not permitted"),
        ({"model": {"type": "local", "path": "a\0b"}}, "model.local.path", "String should match pattern"),
        (method(beta=-1), "method.diffusion_dpo.beta", "greater than 0"),
        (method(beta=float("nan")), "method.diffusion_dpo.beta", "finite number"),
        (
            method(loss="sigmoid", label_smoothing=0.1),
            "method.diffusion_dpo",
            "label_smoothing is read by the losses cdpo and robust",
        ),
        (method(loss="ipo", dmpo_alpha=0.1), "method.diffusion_dpo", "dmpo_alpha is read by the loss dmpo"),
        (
            method(dataset={"type": "stored", "id": "../../etc"}),
            "method.diffusion_dpo.dataset.stored.id",
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


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_a_lora_is_of_the_familys_own_layers_where_the_spec_leaves_them_out(family: FamilyName) -> None:
    left_out = JobSpec.model_validate(MINIMAL)
    found = left_out.resolved(family)
    assert isinstance(found.adapter, LoraAdapter)
    assert found.adapter.target_modules == FAMILIES[family].lora_targets
    assert left_out.resolved(family).resolved("sd") == found  # what is written out stays
    keeps_hash = found.sha256() == left_out.sha256()
    assert keeps_hash == (family in ("sd", "sdxl"))


def test_layers_that_the_spec_names_are_no_familys_to_change() -> None:
    named = {**MINIMAL, "adapter": {"type": "lora", "target_modules": ["to_q"]}}
    assert JobSpec.model_validate(named).resolved("flux") == JobSpec.model_validate(named).resolved()


def test_a_spec_from_before_layers_followed_from_the_family_keeps_its_hash() -> None:
    before = {**MINIMAL, "training": {"precision": "fp32"}}  # as every spec of then
    stored = {**before, "adapter": {"type": "lora", "target_modules": ["to_k", "to_q", "to_v", "to_out.0"]}}
    assert JobSpec.model_validate(before).sha256() == JobSpec.model_validate(stored).sha256() == HASH_OF_MINIMAL


def test_a_spec_from_before_servers_had_versions_keeps_its_hash() -> None:
    remote = {"type": "remote", "url": "https://rewards.example.org/score"}
    spec = {
        "model": "shapes",
        "method": {"type": "ddpo", "reward": {"type": "weighted_sum", "parts": [{"weight": 1.0, "reward": remote}]}},
        "evaluation": {"prompts": ["a"], "rewards": [remote]},
    }
    spec["method"] |= {"prompts": ["a"]}
    versioned = {**spec, "evaluation": {"prompts": ["a"], "rewards": [{**remote, "version": "2"}]}}
    assert JobSpec.model_validate(spec).sha256() == HASH_OF_REMOTE
    assert JobSpec.model_validate(versioned).sha256() != HASH_OF_REMOTE


def test_small_batches_and_missing_rewards_are_warned_about() -> None:
    spec = JobSpec.model_validate({**MINIMAL, "training": {"batch_size": 4, "gradient_accumulation_steps": 1}})
    warnings = " ".join(warnings_of(spec))
    assert "4 pairs per optimiser step" in warnings
    assert "evaluation.rewards is empty" in warnings


def test_the_spec_can_be_read_without_torch() -> None:
    code = "import sys, alignment_core.spec, alignment_core.events, alignment_core.reports; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the plug-ins --------------------------------------------------------------------------------------------------

PRESET = {name: {"type": "preset", "name": name} for name in ("paper", "seed", "adaptive")}


def resolved(**changes: object) -> JobSpec:
    return JobSpec.model_validate({**MINIMAL, **changes}).resolved()


def test_without_plug_ins_the_reference_is_frozen_and_timesteps_are_uniform() -> None:
    spec = resolved()
    assert (spec.reference.type, spec.timesteps.type) == ("frozen", "uniform")


def test_the_paper_copies_every_32_steps_behind_a_guard_and_draws_noisy_steps() -> None:
    spec = resolved(reference=PRESET["paper"], timesteps=PRESET["paper"])
    assert spec.reference.model_dump(include={"type", "every", "reg_mode"}) == {
        "type": "hard_copy",
        "every": 32,
        "reg_mode": "gate",
    }
    guard = spec.reference.guard
    assert (guard.metric, guard.delta, guard.test, guard.action, guard.sticky, guard.num_samples) == (
        "mse_gap",
        0.005,
        "reference",
        "freeze",
        True,
        64,
    )
    sampler = spec.timesteps.sampler
    assert (spec.timesteps.num_bins, sampler.type, sampler.gamma) == (10, "discounted", 0.9)
    assert spec.timesteps.reward_scale.type == "minmax_inv_sqrt_snr"
    assert spec.timesteps.loss_weight.type == "constant"


def test_the_seed_averages_slowly_ties_the_policy_and_adds_a_weighted_term() -> None:
    spec = resolved(reference=PRESET["seed"], timesteps=PRESET["seed"])
    reference, weight = spec.reference, spec.timesteps.loss_weight
    assert (reference.type, reference.every, reference.alpha, reference.guard) == ("ema", 1, 1e-3, None)
    assert (reference.reg_mode, reference.lambda_1, reference.reg_units) == ("policy_to_init", 0.1, "logit")
    assert reference.ref_store == "dense_delta"
    assert (weight.direction, weight.power, weight.normalization, weight.tnorm, weight.lambda_2) == (
        "inverse",
        "std",
        "mean1",
        "add",
        1.0,
    )
    assert (weight.rho, weight.clip, weight.min_samples) == (0.99, (0.2, 5.0), 64)


@pytest.mark.parametrize(
    ("reference", "against"),
    [
        ({"type": "frozen"}, "reference"),
        ({"type": "ema"}, "reference"),
        ({"type": "ema", "alpha": 1.0}, "initial"),
        ({"type": "hard_copy"}, "initial"),
        ({"type": "drift_controlled"}, "initial"),
        ({"type": "drift_controlled", "alpha_max": 0.5}, "reference"),
    ],
)
def test_statistics_are_taken_against_a_model_that_no_copy_resets(reference: dict[str, object], against: str) -> None:
    assert resolved(reference=reference, timesteps=PRESET["seed"]).timesteps.loss_weight.stat_against == against
    told = {"type": "timestep_aware", "loss_weight": {"type": "variance", "stat_against": "initial"}}
    assert resolved(reference=reference, timesteps=told).timesteps.loss_weight.stat_against == "initial"


@pytest.mark.parametrize("adapter", ["lora", "full"])
@pytest.mark.parametrize("name", PRESET)
def test_resolving_a_preset_twice_changes_nothing(name: str, adapter: str) -> None:
    changes = {"reference": PRESET[name], "timesteps": PRESET[name], "adapter": {"type": adapter}}
    once = resolved(**changes)
    assert once.resolved() == once
    assert JobSpec.model_validate(once.model_dump(mode="json")) == once
    assert once.sha256() == JobSpec.model_validate({**MINIMAL, **changes}).sha256()


@pytest.mark.parametrize(
    ("changes", "place", "message"),
    [
        ({"reference": {"type": "ema", "alpha": 1.5}}, "reference.ema.alpha", "less than or equal to 1"),
        ({"reference": {"type": "moving"}}, "reference", "is none of frozen, hard_copy, ema"),
        (
            {"reference": {"type": "ema", "ref_store": "dense_delta"}, "adapter": {"type": "full"}},
            "",
            "reference.ref_store is about LoRA",
        ),
        ({"reference": {"type": "hard_copy", "offload_initial": True}}, "", "offload_initial is for full fine-tunes"),
        (
            {
                "reference": {"type": "ema", "reg_mode": "through_ema"},
                "training": {"gradient_checkpointing": True},
            },
            "",
            "through_ema excludes training.gradient_checkpointing",
        ),
        (
            {"timesteps": {"type": "timestep_aware", "sampler": {"type": "table", "probabilities": [0.5, 0.4]}}},
            "timesteps.timestep_aware.sampler.table",
            "probabilities sum to 0.9",
        ),
        (
            {"timesteps": {"type": "timestep_aware", "num_bins": 3, "loss_weight": {"type": "table", "values": [1]}}},
            "timesteps.timestep_aware",
            "loss_weight.values has 1 values, and num_bins is 3",
        ),
        (
            {"timesteps": {"type": "timestep_aware", "loss_weight": {"type": "variance", "clip": [2, 5]}}},
            "timesteps.timestep_aware.loss_weight.variance",
            "on either side of 1",
        ),
    ],
)
def test_a_mistake_in_a_plug_in_is_told_with_its_place(changes: dict[str, object], place: str, message: str) -> None:
    where, what = error_of(changes)
    assert where == place
    assert message in what


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"timesteps": PRESET["paper"]}, "only together with a moving reference"),
        ({"reference": {"type": "hard_copy", "guard": None}}, "copying the policy without a guard"),
        ({"reference": PRESET["paper"], "training": {"steps": 31}}, "the reference never moves"),
        ({"reference": {"type": "ema", "ref_store": "factor_average"}}, "not the average of the weights"),
        ({"reference": {"type": "hard_copy", "guard": {"sticky": False}}}, "and is skipped again"),
    ],
)
def test_plug_ins_that_are_probably_not_meant_are_warned_about(changes: dict[str, object], warning: str) -> None:
    assert warning in " ".join(warnings_of(JobSpec.model_validate({**MINIMAL, **changes})))
    assert warning not in " ".join(warnings_of(JobSpec.model_validate(MINIMAL)))


def test_online_spec_without_evaluation_prompts_is_told_that_no_report_will_come() -> None:
    online = {"type": "ddpo", "prompts": ["a red circle"], "reward": {"type": "brightness"}}
    spec = JobSpec.model_validate({"model": {"type": "catalog", "name": "shapes"}, "method": online})
    assert any("evaluation.prompts" in warning for warning in warnings_of(spec))
    told = spec.model_copy(update={"evaluation": EvaluationSpec(prompts=("a blue square",))})
    assert not any("evaluation.prompts" in warning for warning in warnings_of(told))


def test_guards_that_have_nothing_to_look_at_are_told() -> None:
    online = {"type": "ddpo", "prompts": ["a red circle"], "reward": {"type": "brightness"}}
    probed = {"every": 10, "prompts": ["a blue square"], "seeds_per_prompt": 1}
    base = {"model": {"type": "catalog", "name": "shapes"}, "method": online}
    told = warnings_of(JobSpec.model_validate({**base, "evaluation": probed}))
    assert any("guards.diversity" in warning for warning in told)
    assert not any("guards.reward_hacking" in warning for warning in told)  # an untrained control was added
    pairs = {"type": "mapo", "dataset": {"type": "local", "path": "pairs.parquet"}}
    alone = {"every": 10, "prompts": ["a blue square"], "rewards": [{"type": "brightness"}]}
    told = warnings_of(JobSpec.model_validate({**base, "method": pairs, "evaluation": alone}))
    assert any("guards.reward_hacking" in warning for warning in told)
