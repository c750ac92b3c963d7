"""A second report on the same images computes no reward, and its numbers are those of the first."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from alignment_core import align
from alignment_core.events import EvaluationCompleted
from alignment_core.rewards.brightness import Brightness
from alignment_core.rewards.symmetry import Symmetry
from alignment_core.shapes import Images, PerExample
from alignment_core.spec import JobSpec
from tests.alignment_core.rollouts.test_online import METHODS, online_spec
from tests.alignment_core.test_alignment import of_type
from tests.alignment_core.tiny import EVALUATION

REWARDS = [{"type": "brightness"}, {"type": "weighted_sum", "parts": [{"weight": 2.0, "reward": "symmetry"}]}]
TRAINING = {"steps": 2, "batch_size": 2, "gradient_accumulation_steps": 1, "learning_rate": 1e-3}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many images each reward was asked for."""
    found: Counter[str] = Counter()
    for reward in (Brightness, Symmetry):
        original = reward.__call__

        def counted(self: Any, images: Images, prompts: Sequence[str], original: Any = original) -> PerExample:
            found[type(self).__name__] += len(images)
            return original(self, images, prompts)

        monkeypatch.setattr(reward, "__call__", counted)
    return found


def report(spec: JobSpec, workdir: Path, cache_dir: Path) -> dict[str, Any]:
    (found,) = of_type(list(align(spec, workdir, cache_dir=cache_dir)), EvaluationCompleted)
    return found.report


def test_a_second_report_computes_no_reward_twice_and_has_the_same_numbers(
    tiny_model: Path, tmp_path: Path, asked: Counter[str]
) -> None:
    evaluation = {**EVALUATION, "rewards": REWARDS, "every": 2}
    method = {**METHODS["ddpo"], "reward": {"type": "colorfulness"}}
    spec = online_spec(tiny_model, method, training=TRAINING, evaluation=evaluation)
    first = report(spec, tmp_path / "first", tmp_path / "cache")
    assert min(asked["Brightness"], asked["Symmetry"]) > 0
    asked.clear()
    second = report(spec, tmp_path / "second", tmp_path / "cache")
    assert asked == Counter(), "nor for the rehearsal and the probes"
    assert first["rewards"] == second["rewards"], "those of a folder without scores, to the bit"
    assert first["prompt_following"] == second["prompt_following"]
