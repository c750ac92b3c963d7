"""Do the online methods work? Colourfulness asked of the demo model, judged on held-out prompts from the same noise."""

from pathlib import Path
from typing import Any

import pytest

from alignment_core import JobSpec, align
from alignment_core.events import EvaluationCompleted
from alignment_core.reports import EvaluationReport
from demo.assets import ASSETS
from demo.captions import train_captions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

COLORFULNESS = {"type": "colorfulness"}
PROMPTS = [caption.text for caption in train_captions()]
DRAWING = {"prompts": PROMPTS, "num_inference_steps": 10, "guidance_scale": 2.5}

# A reward differs more between prompts than between a prompt's own images: the baseline is that of the prompt.
SAMPLED = {"reward": COLORFULNESS, "prompts_per_iteration": 16, "samples_per_prompt": 4, "ratio_clamp": 0.01}


def online_report(
    method: dict[str, Any], workdir: Path, *, steps: int, judged: dict[str, Any] = COLORFULNESS, **training: Any
) -> EvaluationReport:
    """A run of a full fine-tune on the demo model, two held-out images a prompt."""
    spec = JobSpec.model_validate(
        {
            "model": {"type": "local", "path": str(ASSETS / "model")},
            "method": {**DRAWING, **method},
            "adapter": {"type": "full"},
            "training": {
                "steps": steps,
                "batch_size": 16,
                "gradient_accumulation_steps": 1,
                "learning_rate": 2e-4,
                "weight_decay": 1e-4,
                **training,
            },
            "evaluation": {
                "prompts": (ASSETS / "prompts.txt").read_text().splitlines(),
                "max_prompts": 64,
                "num_inference_steps": 12,
                "guidance_scale": 2.5,
                "batch_size": 32,
                "rewards": [judged],
                "prompt_following": {
                    "type": "attribute_classifier",
                    "weights": {"type": "local", "path": str(ASSETS / "classifiers" / "judge")},
                },
            },
            "resources": {"device": "cpu", "num_cpu_threads": 1},
        }
    )
    (event,) = [event for event in align(spec, workdir) if isinstance(event, EvaluationCompleted)]
    return EvaluationReport.model_validate(event.report)


def assert_gains(report: EvaluationReport, at_least: float, p_below: float = 0.05) -> None:
    reward = report.rewards[0]  # the others are controls
    assert reward.gain >= at_least
    assert reward.gain_interval.low > 0
    assert reward.p_value is not None
    assert reward.p_value < p_below


def assert_follows(report: EvaluationReport, at_most_below: float) -> None:
    following = report.prompt_following
    assert following is not None
    assert following.policy_mean >= following.base_mean - at_most_below


def test_ten_iterations_of_tailorpo_give_colour_and_keep_the_prompt(tmp_path: Path) -> None:
    method = {"type": "tailorpo", "rewards": [COLORFULNESS]}  # settings confirmed on training prompts and other seeds
    report = online_report(method, tmp_path, steps=50, batch_size=24, learning_rate=1.5e-4)
    assert_gains(report, at_least=0.15, p_below=1e-10)
    assert_follows(report, at_most_below=0.12)


def test_tailorpo_with_guidance_gains_too(tmp_path: Path) -> None:
    report = online_report({"type": "tailorpo", "rewards": [COLORFULNESS], "guidance": {}}, tmp_path, steps=50)
    assert_gains(report, at_least=0.15)


def test_fifteen_iterations_of_d3po_give_colour(tmp_path: Path) -> None:
    method = {"type": "d3po", "rewards": [COLORFULNESS], "num_trained_steps": 5}
    assert_gains(online_report(method, tmp_path, steps=75), at_least=0.08, p_below=1e-6)


def test_ddpo_gives_colour(tmp_path: Path) -> None:
    method = {"type": "ddpo", "advantage": "prompt", **SAMPLED}
    assert_gains(online_report(method, tmp_path, steps=60, batch_size=160), at_least=0.05)


def test_dpok_gives_colour(tmp_path: Path) -> None:
    method = {"type": "dpok", "baseline": "prompt", "buffer_iterations": 1, **SAMPLED}
    assert_gains(online_report(method, tmp_path, steps=60, batch_size=128), at_least=0.05)


# Few pairs an iteration lead one way on one processor and another on the next: rounding decides a short run. With these the
# bytes move as wanted from the seeds 0, 1 and 2.
OPPOSITE = {
    "compressible": {"steps": 60, "batch_size": 32},
    "incompressible": {"steps": 50, "batch_size": 24, "learning_rate": 1.5e-4},
}


@pytest.mark.parametrize("direction", OPPOSITE)
def test_opposite_rewards_move_opposite_ways(direction: str, tmp_path: Path) -> None:
    wanted = {"type": "jpeg_size", "direction": direction}
    method = {"type": "tailorpo", "rewards": [wanted]}
    report = online_report(method, tmp_path, judged=wanted, **OPPOSITE[direction])
    assert_gains(report, at_least=0.02, p_below=1e-5)  # in its own direction: bytes saved by one are spent by the other
