"""Does it work? The demo's own job on the demo model: preferences for colour must give colour, and noise must not."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from alignment_core import JobSpec, align
from alignment_core.events import EvaluationCompleted
from alignment_core.reports import EvaluationReport, RewardComparison
from demo.assets import ASSETS
from demo.pairs import main as make_pairs

UPDATED = ("method", "training", "evaluation")  # the other parts are replaced whole

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def demo_spec(pairs: Path, **changes: dict[str, Any]) -> JobSpec:
    """`demo/job.yaml` with its names replaced by local paths; `changes` update top-level parts."""
    spec = yaml.safe_load((ASSETS.parent / "job.yaml").read_text())
    spec["model"] = {"type": "local", "path": str(ASSETS / "model")}
    spec["method"]["dataset"] = {"type": "local", "path": str(pairs)}
    spec["evaluation"]["prompts"] = (ASSETS / "prompts.txt").read_text().splitlines()
    spec["evaluation"]["prompt_following"]["weights"] = {"type": "local", "path": str(ASSETS / "classifiers" / "judge")}
    for part, values in changes.items():
        spec[part] = {**spec[part], **values} if part in UPDATED else values
    return JobSpec.model_validate(spec)


def report_of(spec: JobSpec, workdir: Path, cache_dir: Path) -> EvaluationReport:
    (event,) = [e for e in align(spec, workdir, cache_dir=cache_dir) if isinstance(e, EvaluationCompleted)]
    return EvaluationReport.model_validate(event.report)


def colorfulness_of(report: EvaluationReport) -> RewardComparison:
    assert report.rewards[0].name == "colorfulness"
    return report.rewards[0]


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def shuffled_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "shuffled.parquet"
    make_pairs(["--out", str(path), "--shuffle-labels"])
    return path


@pytest.mark.parametrize("seed", [0, 1])
def test_preferences_for_colour_give_colour_on_held_out_prompts(seed: int, tmp_path: Path, cache_dir: Path) -> None:
    spec = demo_spec(ASSETS / "pairs.parquet").model_copy(update={"seed": seed})
    report = report_of(spec, tmp_path, cache_dir)
    colorfulness, following = colorfulness_of(report), report.prompt_following
    assert report.verdict == "improved"
    assert colorfulness.gain >= 0.12
    assert colorfulness.gain_interval.low > 0
    assert colorfulness.win_rate >= 0.9
    assert following is not None
    assert following.policy_mean >= following.base_mean - 0.05


def test_a_full_fine_tune_gains_too(tmp_path: Path, cache_dir: Path) -> None:
    training = {"steps": 40, "learning_rate": 1e-4}
    spec = demo_spec(ASSETS / "pairs.parquet", adapter={"type": "full"}, training=training)
    colorfulness = colorfulness_of(report_of(spec, tmp_path, cache_dir))
    assert colorfulness.gain >= 0.08
    assert colorfulness.gain_interval.low > 0


@pytest.mark.parametrize("name", ["paper", "seed", "adaptive"])
def test_both_plug_ins_still_give_colour(name: str, tmp_path: Path, cache_dir: Path) -> None:
    preset = {"type": "preset", "name": name}
    spec = demo_spec(ASSETS / "pairs.parquet", reference=preset, timesteps=preset)
    report = report_of(spec, tmp_path, cache_dir)
    assert report.verdict == "improved"
    assert colorfulness_of(report).gain_interval.low > 0


def test_shuffled_labels_give_nothing(shuffled_pairs: Path, tmp_path: Path, cache_dir: Path) -> None:
    report = report_of(demo_spec(shuffled_pairs), tmp_path, cache_dir)
    assert abs(colorfulness_of(report).gain) <= 0.05
