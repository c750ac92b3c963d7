"""Do other families align as Stable Diffusion 1.x does? Colour asked of the tiny SDXL and of the tiny SD 3."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alignment_core.reports import EvaluationReport
from demo.captions import train_captions
from demo.families import FAMILIES
from demo.families.job import aligned, family_job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

COLORFULNESS = {"type": "colorfulness"}
ONLINE: dict[str, Any] = {
    "rewards": [COLORFULNESS],
    "prompts": [caption.text for caption in train_captions()],
    "num_inference_steps": 10,
    "guidance_scale": 2.5,
}


def report_of(family: str, workdir: Path, **changes: dict[str, Any]) -> EvaluationReport:
    spec = family_job(family, evaluation={"max_prompts": 24}, **changes)
    return aligned(spec, workdir / "run", lambda step, total: None).report


def assert_gains(report: EvaluationReport, at_least: float) -> None:
    assert report.rewards[0].name == "colorfulness"
    assert report.rewards[0].gain >= at_least
    assert report.rewards[0].gain_interval.low > 0


def assert_follows(report: EvaluationReport, at_most_below: float) -> None:
    following = report.prompt_following
    assert following is not None
    assert following.policy_mean >= following.base_mean - at_most_below


@pytest.mark.parametrize("family", FAMILIES)
def test_preferences_for_colour_give_colour(family: str, tmp_path: Path) -> None:
    report = report_of(family, tmp_path, training={"steps": 50})
    assert_gains(report, at_least=0.05)
    assert_follows(report, at_most_below=0.05)


@pytest.mark.parametrize("family", FAMILIES)
def test_tailorpo_gives_colour(family: str, tmp_path: Path) -> None:
    method = {"type": "tailorpo", **ONLINE}
    training = {"steps": 25, "batch_size": 16, "learning_rate": 2e-4, "weight_decay": 1e-4}
    report = report_of(family, tmp_path, method=method, adapter={"type": "full"}, training=training)
    assert_gains(report, at_least=0.05)
    assert_follows(report, at_most_below=0.12)


def test_the_command_shows_a_picture_of_each_family(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "demo.families", "--steps", "20", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    for family in FAMILIES:
        (picture,) = (tmp_path / family).glob("evaluation/*/grid.png")
        assert str(picture) in done.stdout
    assert done.stdout.count("improved: 57 held-out prompts x 2 seeds") == len(FAMILIES)
