"""Online runs of a tiny model: resumed bit for bit, judged, drawn and refused as the spec says."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file
from torch import Tensor

from alignment_core import AlignmentError, JobSpec, align
from alignment_core.checkpoints import STATE, folder_of
from alignment_core.errors import CheckpointError
from alignment_core.events import EvaluationCompleted, PrecisionMeasured, RunStarted, StepCompleted, TimestepTable
from alignment_core.methods.d3po import D3PO
from alignment_core.methods.ddpo import DDPO
from alignment_core.rewards.build import build_reward
from alignment_core.rollouts.rollout import walk
from alignment_core.rollouts.setup import RolloutBatch
from alignment_core.spec import RewardSpec
from alignment_core.spec.rewards import without_gradient
from alignment_core.spec.warnings import warnings_of
from tests.alignment_core.load.test_loading import loaded
from tests.alignment_core.test_alignment import of_type, same_weights, stop_after
from tests.alignment_core.tiny import EVALUATION, UNJUDGED, tiny_spec

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

PROMPTS = ["a red circle", "a blue square", "a green circle"]
DRAWING = {"prompts": PROMPTS, "num_inference_steps": 4, "guidance_scale": 2.0}
BRIGHTNESS = {"type": "brightness"}
METHODS: dict[str, dict[str, Any]] = {
    "tailorpo": {"type": "tailorpo", "rewards": [BRIGHTNESS], "num_trained_steps": 3},
    "tailorpo_g": {"type": "tailorpo", "rewards": [BRIGHTNESS], "num_trained_steps": 3, "guidance": {}},
    "tailorpo_clamped": {
        "type": "tailorpo",
        "rewards": [BRIGHTNESS],
        "num_trained_steps": 3,
        "guidance": {"stop_network_grad": True},
        "ratio_clamp": 0.1,
    },
    "d3po": {"type": "d3po", "rewards": [BRIGHTNESS], "prompts_per_iteration": 4, "num_trained_steps": 3},
    "ddpo": {"type": "ddpo", "reward": BRIGHTNESS, "prompts_per_iteration": 4, "num_trained_steps": 3},
    "dpok": {"type": "dpok", "reward": BRIGHTNESS, "prompts_per_iteration": 3, "updates_per_iteration": 3},
    "dpok_value": {
        "type": "dpok",
        "reward": BRIGHTNESS,
        "prompts_per_iteration": 3,
        "updates_per_iteration": 3,
        "baseline": "value",
        "value_network": {"batch_size": 4, "num_batches": 2, "width": 8},
    },
}


def online_spec(model: Path, method: dict[str, Any], **changes: Any) -> JobSpec:
    """The tiny run with an online method: six steps, three an iteration, of two micro-batches of two."""
    training = {"steps": 6, "batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-3}
    chosen = {"training": training, "evaluation": UNJUDGED, **changes}
    return tiny_spec(model, Path("unused"), method={**DRAWING, **method}, **chosen)


Undisturbed = Callable[[str], tuple[Path, list[StepCompleted]]]


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A method's run as it is, made once: its last checkpoint, and its steps."""

    @cache
    def run(name: str) -> tuple[Path, list[StepCompleted]]:
        workdir = tmp_path_factory.mktemp(name)
        steps = steps_of(online_spec(tiny_model, METHODS[name]), workdir)
        return folder_of(workdir / "checkpoints", 6), steps

    return run


def steps_of(spec: JobSpec, workdir: Path) -> list[StepCompleted]:
    return of_type(list(align(spec, workdir)), StepCompleted)


@pytest.mark.parametrize(
    ("name", "stopped_at"), [*[(name, 2) for name in METHODS], ("tailorpo", 3), ("dpok", 3), ("dpok_value", 3)]
)
def test_a_run_stopped_inside_or_between_iterations_resumes_bit_for_bit(
    name: str, stopped_at: int, undisturbed: Undisturbed, tiny_model: Path, tmp_path: Path
) -> None:
    spec = online_spec(tiny_model, METHODS[name])
    stop_after(spec, tmp_path, tmp_path, stopped_at)
    first, *_ = resumed = list(align(spec, tmp_path))
    assert isinstance(first, RunStarted)
    assert first.resumed_from_step == stopped_at
    assert [event.step for event in of_type(resumed, StepCompleted)] == list(range(stopped_at + 1, 7))
    assert same_weights(undisturbed(name)[0], folder_of(tmp_path / "checkpoints", 6))


@pytest.mark.parametrize("name", METHODS)
def test_the_first_step_begins_at_the_reference_and_has_a_gradient(name: str, undisturbed: Undisturbed) -> None:
    first = undisturbed(name)[1][0].metrics
    assert first["grad_norm"] > 0
    assert first["reward_std"] > 0
    if name in ("tailorpo", "tailorpo_g", "tailorpo_clamped", "d3po"):
        assert first["loss"] == pytest.approx(0.6931472, abs=1e-6)
        assert first["implicit_accuracy"] == 0.5
        assert first["tie_rate"] == 0
    else:
        assert first["ratio"] == pytest.approx(1, abs=1e-6)
        assert first["clamped"] == 0


@pytest.mark.parametrize("name", ["tailorpo", "d3po", "ddpo", "dpok"])
def test_accumulation_cuts_the_same_step_up_differently(name: str, tiny_model: Path, tmp_path: Path) -> None:
    def metrics(batch_size: int, accumulation: int) -> list[dict[str, float]]:
        training = {
            "steps": 3,
            "batch_size": batch_size,
            "gradient_accumulation_steps": accumulation,
            "learning_rate": 1e-4,
        }
        spec = online_spec(tiny_model, METHODS[name], training=training)
        return [event.metrics for event in steps_of(spec, tmp_path / f"{batch_size}")]

    for one, other in zip(metrics(4, 1), metrics(1, 4), strict=True):
        for part in ("loss", "reward", "grad_norm"):
            assert one[part] == pytest.approx(other[part], rel=1e-3, abs=2e-5)


def test_a_reward_said_twice_ranks_as_it_does_once(undisturbed: Undisturbed, tiny_model: Path, tmp_path: Path) -> None:
    twice = [BRIGHTNESS, {**BRIGHTNESS, "name": "again"}]
    list(align(online_spec(tiny_model, {**METHODS["tailorpo"], "rewards": twice}), tmp_path))
    folders = undisturbed("tailorpo")[0], folder_of(tmp_path / "checkpoints", 6)
    one, other = (load_file(folder / "pytorch_lora_weights.safetensors") for folder in folders)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_rewards_that_contradict_each_other_tie_and_train_nothing(tiny_model: Path, tmp_path: Path) -> None:
    jpeg = [{"type": "jpeg_size", "direction": way, "name": way} for way in ("compressible", "incompressible")]
    steps = steps_of(online_spec(tiny_model, {**METHODS["tailorpo"], "rewards": jpeg}), tmp_path)
    assert all(event.metrics["tie_rate"] == 1 and event.metrics["grad_norm"] == 0 for event in steps)


def test_guidance_never_keeps_a_worse_winner(undisturbed: Undisturbed) -> None:
    steps = undisturbed("tailorpo_g")[1]
    assert all(0 <= event.metrics["guidance_accepted"] <= 1 for event in steps)
    assert max(event.metrics["guidance_step"] for event in steps) > 0


def test_guidance_refuses_a_reward_without_a_gradient(tiny_model: Path) -> None:
    method = {**METHODS["tailorpo_g"], "rewards": [{"type": "jpeg_size"}]}
    with pytest.raises(ValidationError, match="follows the gradient of the reward, and jpeg_size has none"):
        online_spec(tiny_model, method)


@pytest.mark.parametrize("reward", ["brightness", "colorfulness", "symmetry", "jpeg_size"])
def test_the_spec_knows_which_rewards_have_a_gradient(reward: str) -> None:
    spec = TypeAdapter(RewardSpec).validate_python(reward)
    assert build_reward(spec, torch.device("cpu")).differentiable == (without_gradient(spec) is None)


def test_a_step_with_hardly_any_noise_is_refused_before_training(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(AlignmentError, match=r"at step .*sigma is below 0\.001"):
        list(align(online_spec(tiny_model, {**METHODS["ddpo"], "eta": 1e-4, "num_trained_steps": 3}), tmp_path))


def test_a_checkpoint_without_its_trajectories_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    spec = online_spec(tiny_model, METHODS["d3po"])
    stop_after(spec, tmp_path, tmp_path, 2)
    folder = folder_of(tmp_path / "checkpoints", 2)
    assert (folder / STATE / "method.safetensors").is_file()
    (folder / STATE / "method.safetensors").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = [file for file in manifest["files"] if not file["path"].endswith("method.safetensors")]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="the trajectories of step 2"):
        list(align(spec, tmp_path))


@pytest.mark.parametrize("name", ["tailorpo", "d3po", "dpok"])
def test_the_reference_may_move_between_iterations(name: str, tiny_model: Path, tmp_path: Path) -> None:
    reference = {"type": "hard_copy", "every": 1, "guard": None}  # iterations, of three steps
    steps = steps_of(online_spec(tiny_model, METHODS[name], reference=reference), tmp_path)
    assert [event.metrics.get("ref_updates") for event in steps] == [None, None, 1.0, None, None, 2.0]
    if name != "dpok":
        assert steps[2].metrics["kl"] > 0
        assert steps[3].metrics["kl"] == 0


ONE_STEP = {
    "type": "timestep_aware",
    "num_bins": 4,
    "sampler": {"type": "table", "probabilities": [1.0, 0.0, 0.0, 0.0]},
}
FIVE_BINS = {"type": "timestep_aware", "num_bins": 5, "sampler": {"type": "table", "probabilities": [0.2] * 5}}
AGAINST_INITIAL = {"type": "timestep_aware", "loss_weight": {"type": "variance", "stat_against": "initial"}}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("tailorpo", {"method": {"eta": 0}}, "greater than 0"),
    ("tailorpo", {"method": {"num_trained_steps": 5}}, "num_trained_steps (5) is larger than num_inference_steps (4)"),
    ("tailorpo_g", {"method": {"rewards": [BRIGHTNESS, {"type": "jpeg_size"}]}}, "the gradient of one reward"),
    ("d3po", {"method": {"rewards": [BRIGHTNESS, BRIGHTNESS]}}, "rewards must have different names"),
    ("d3po", {"method": {"prompts_per_iteration": 5}}, "does not divide them"),
    ("dpok", {"method": {"prompts_per_iteration": 1, "num_inference_steps": 3}}, "fewer than the 4 of one step"),
    ("ddpo", {"method": {"advantage": "prompt"}}, "samples_per_prompt must be at least 2"),
    ("ddpo", {"reference": {"type": "ema", "alpha": 0.1}}, "ddpo has no reference model"),
    ("d3po", {"reference": {"type": "hard_copy", "guard": {"metric": "mse_gap"}}}, "d3po has none: choose eps_dist"),
    ("dpok", {"reference": {"type": "drift_controlled", "metric": "mse_gap"}}, "dpok has none: choose eps_dist"),
    ("tailorpo", {"timesteps": ONE_STEP}, "leave 1 steps to draw from, and tailorpo trains 3"),
    ("dpok", {"timesteps": ONE_STEP}, "leave 3 steps to draw from, and dpok trains 4"),
    ("d3po", {"timesteps": FIVE_BINS}, "timesteps.num_bins (5) is larger than method.num_inference_steps (4)"),
    ("dpok", {"timesteps": AGAINST_INITIAL}, "is measured against no model"),
    ("ddpo", {"timesteps": {"type": "timestep_aware", "reward_scale": {"type": "minmax_inv_sqrt_snr"}}}, "has none"),
]


@pytest.mark.parametrize(("name", "changes", "message"), REFUSED)
def test_what_does_not_fit_together_is_refused_when_the_spec_is_read(
    name: str, changes: dict[str, Any], message: str, tiny_model: Path
) -> None:
    method = {**METHODS[name], **changes.get("method", {})}
    others = {part: value for part, value in changes.items() if part != "method"}
    with pytest.raises(ValidationError) as caught:
        online_spec(tiny_model, method, **others)
    assert message in caught.value.errors()[0]["msg"]


NOISY = {"type": "table", "probabilities": [0.5, 0.5, 0.0, 0.0]}


@pytest.mark.parametrize("name", ["tailorpo", "d3po", "ddpo", "dpok"])
def test_a_sampler_chooses_which_steps_are_trained(name: str, tiny_model: Path, tmp_path: Path) -> None:
    steps = {} if name == "dpok" else {"num_trained_steps": 2}
    aware = {"type": "timestep_aware", "num_bins": 4, "sampler": NOISY}
    spec = online_spec(
        tiny_model,
        {**METHODS[name], **steps},
        timesteps=aware,
        training={"steps": 2, "batch_size": 2, "gradient_accumulation_steps": 2},
    )
    (table,) = of_type(list(align(spec, tmp_path)), TimestepTable)
    trained = {row.first_timestep for row in table.bins if row.count}
    assert trained == {700, 500}  # of the steps 751, 501, 251 and 1


def test_the_importance_correction_undoes_what_a_sampler_prefers(tiny_model: Path, tmp_path: Path) -> None:
    sampler = {"type": "discounted", "gamma": 0.5, "importance_correction": True}
    aware = {"type": "timestep_aware", "num_bins": 4, "sampler": sampler}
    method = {**METHODS["dpok"], "prompts_per_iteration": 8}
    (table,) = of_type(list(align(online_spec(tiny_model, method, timesteps=aware), tmp_path)), TimestepTable)
    weights = [row.weight for row in table.bins if row.weight is not None]
    # p = 8/15, 4/15, 2/15, 1/15 and no step is certain: 1 / (4 p)
    assert weights == pytest.approx([15 / 32, 15 / 16, 15 / 8, 15 / 4][: len(weights)], rel=1e-5)
    assert len(weights) == 4


def test_what_is_left_out_of_a_reference_counts_iterations_online(tiny_model: Path) -> None:
    def reference(name: str) -> dict[str, Any]:
        spec = online_spec(tiny_model, METHODS["d3po"], reference={"type": "preset", "name": name})
        return spec.resolved().reference.model_dump()

    paper, seed, adaptive = map(reference, ("paper", "seed", "adaptive"))
    assert (paper["every"], paper["guard"]["metric"], paper["guard"]["delta"]) == (6, "eps_dist", 0.05)
    assert (seed["every"], seed["alpha"], seed["reg_mode"]) == (1, 5e-3, "policy_to_init")
    assert (adaptive["every"], adaptive["metric"], adaptive["delta"]) == (6, "eps_dist", 0.05)


def test_the_first_iteration_that_may_update_is_counted_in_iterations(tiny_model: Path, tmp_path: Path) -> None:
    reference = {"type": "hard_copy", "every": 1, "start": 2, "guard": None}
    steps = steps_of(online_spec(tiny_model, METHODS["d3po"], reference=reference), tmp_path)
    assert [event.metrics.get("ref_updates") for event in steps] == [None, None, None, None, None, 1.0]


def test_a_copied_reference_leaves_the_margin_against_the_initial_model(tiny_model: Path, tmp_path: Path) -> None:
    reference = {"type": "hard_copy", "every": 1, "guard": None}
    for name in ("tailorpo", "d3po"):
        after_the_copy = steps_of(online_spec(tiny_model, METHODS[name], reference=reference), tmp_path / name)[3]
        assert after_the_copy.metrics["margin"] == 0
        assert after_the_copy.metrics["margin_vs_init"] != 0


@pytest.mark.parametrize("name", ["tailorpo", "d3po", "dpok"])
def test_penalties_hold_the_policy_back(name: str, tiny_model: Path, tmp_path: Path) -> None:
    def moved(mode: str, lambda_1: float) -> float:
        reference = {"type": "ema", "alpha": 1.0, "reg_mode": mode, "lambda_1": lambda_1, "reg_units": "mse"}
        spec = online_spec(tiny_model, METHODS[name], reference=reference)
        return steps_of(spec, tmp_path / f"{mode}{lambda_1}")[-1].metrics["ref_drift_batch_eps_dist"]

    free = moved("policy_to_init", 0.0)
    assert moved("policy_to_init", 1e5) < free
    assert moved("through_ema", 1e5) < free


def test_a_sampler_without_a_choice_is_warned_of(tiny_model: Path) -> None:
    method = {key: value for key, value in METHODS["d3po"].items() if key != "num_trained_steps"}
    paper = {"type": "preset", "name": "paper"}
    told = warnings_of(online_spec(tiny_model, method, timesteps=paper, reference=paper))
    assert any("timesteps.sampler has nothing to choose" in sentence for sentence in told)


@pytest.mark.parametrize("name", ["tailorpo", "d3po", "ddpo", "dpok"])
def test_the_learning_rate_left_out_is_the_published_one(name: str, tiny_model: Path) -> None:
    training = {"batch_size": 4, "gradient_accumulation_steps": 1}
    spec = online_spec(tiny_model, METHODS[name], training=training)
    expected = {"tailorpo": 3e-5, "d3po": 3e-5, "ddpo": 3e-4, "dpok": 1e-5}
    assert spec.resolved().training.learning_rate == expected[name]
    assert not warnings_of(spec)


def test_timestep_weights_reach_the_loss(undisturbed: Undisturbed, tiny_model: Path, tmp_path: Path) -> None:
    table = {"type": "timestep_aware", "num_bins": 2, "loss_weight": {"type": "table", "values": [2.0, 2.0]}}
    plain = undisturbed("tailorpo")[1][0].metrics
    heavy = steps_of(online_spec(tiny_model, METHODS["tailorpo"], timesteps=table), tmp_path)[0].metrics
    assert heavy["grad_norm"] == pytest.approx(2 * plain["grad_norm"], rel=1e-5)


def test_a_run_ends_with_the_comparison(tiny_model: Path, tmp_path: Path) -> None:
    events = list(align(online_spec(tiny_model, METHODS["tailorpo"], evaluation=EVALUATION), tmp_path))
    (report,) = of_type(events, EvaluationCompleted)
    assert report.report["rewards"][0]["name"] == "brightness"


def test_tailorpo_trains_on_the_prediction_that_it_branched_from_and_on_nothing_else(
    tiny_model: Path, tmp_path: Path
) -> None:
    spec = online_spec(tiny_model, METHODS["tailorpo_g"], training={"steps": 3, "batch_size": 2, "learning_rate": 1e-2})
    run = loaded(spec, tmp_path)
    batches = list(islice(run.method.batches(run.actors, run.timesteps, 0), spec.accumulation))
    assert [batch.policy is not None for batch in batches] == [True] + [False] * (spec.accumulation - 1)
    trainable = list(run.actors.trainable().values())
    found = []
    for batch in (batches[0], replace(batches[0], policy=None)):
        loss = run.method.loss(run.actors, batch).per_example
        found.append((loss.detach(), *torch.autograd.grad(loss.mean(), trainable)))
    again, asked = found
    assert all(torch.equal(one, other) for one, other in zip(again, asked, strict=True))
    assert any(gradient.abs().max() > 0 for gradient in again[1:])


def test_the_trajectories_of_a_pair_share_one_prediction_at_their_noise(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = loaded(online_spec(tiny_model, METHODS["d3po"]), tmp_path)
    assert isinstance(run.method, D3PO)
    rollouts = run.method.rollout_batch(run.actors, 0)
    alone = _walked(rollouts, 0), _walked(rollouts, 1)
    asked, predict = [], run.family.predict
    monkeypatch.setattr(run.family, "predict", lambda *given: (asked.append(1), predict(*given))[1])
    drawn = run.method.draw_iteration(rollouts, 0, {})
    assert len(asked) == 2 * (2 * DRAWING["num_inference_steps"] - 1), "in two batches"
    assert all(torch.equal(drawn[f"states_{branch}"][:, -1], alone[branch]) for branch in (0, 1))


def _walked(rollouts: RolloutBatch, branch: int) -> Tensor:
    """A whole trajectory of each prompt, two at a time as the method draws them, every prediction asked anew."""
    grid, ends = rollouts.setup.grid, []
    for rows in ([0, 1], [2, 3]):
        noise = partial(rollouts.draws.noise, rows, branch=branch)
        drawn = walk(grid, rollouts.drawing(rows), rollouts.start(rows), noise, first=0, last=len(grid))
        ends.append(drawn.states[-1])
    return torch.cat(ends)


def test_no_prompt_is_read_once_a_run(tiny_model: Path, tmp_path: Path) -> None:
    run = loaded(online_spec(tiny_model, METHODS["ddpo"]), tmp_path)
    assert isinstance(run.method, DDPO)
    first, second = (run.method.rollout_batch(run.actors, iteration) for iteration in (0, 1))
    assert all(second.empty[name] is value for name, value in first.empty.items())


def test_a_kept_prediction_does_not_hide_the_rounding_of_half_precision(tiny_model: Path, tmp_path: Path) -> None:
    training = {"steps": 1, "batch_size": 2, "gradient_accumulation_steps": 2, "precision": "bf16"}
    spec = online_spec(tiny_model, METHODS["tailorpo"], training=training, evaluation={})
    (measured,) = of_type(list(align(spec, tmp_path)), PrecisionMeasured)
    assert measured.logit_rms is not None
    assert measured.logit_rms > 0
