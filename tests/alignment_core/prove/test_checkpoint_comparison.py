"""Any two checkpoints against each other: the same report, whatever the two are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alignment_core import align
from alignment_core.errors import CheckpointError
from alignment_core.events import EvaluationCompleted
from alignment_core.prove.checkpoint_comparison import compare_checkpoints, folder_of
from alignment_core.reports import EvaluationReport
from alignment_core.spec.places import Sources
from tests.alignment_core.tiny import save_tiny_pipeline, tiny_spec

pytestmark = pytest.mark.usefixtures("shapes_unchecked")


@pytest.fixture(scope="module")
def trained(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, EvaluationReport]:
    workdir = tmp_path_factory.mktemp("trained")
    events = list(align(tiny_spec(tiny_model, tiny_pairs), workdir, cache_dir=cache_dir))
    return workdir, report_of(events)


def report_of(events: list) -> EvaluationReport:
    (done,) = [event for event in events if isinstance(event, EvaluationCompleted)]
    return EvaluationReport.model_validate(done.report)


def compared(workdir: Path, cache_dir: Path, base: str, policy: str) -> EvaluationReport:
    return report_of(
        list(compare_checkpoints(workdir, base=base, policy=policy, sources=Sources(), cache_dir=cache_dir))
    )


def test_initial_against_result_is_the_report_of_the_run(
    trained: tuple[Path, EvaluationReport], cache_dir: Path
) -> None:
    workdir, own = trained
    again = compared(workdir, cache_dir, "initial", "result")
    for name in ("rewards", "images", "curves", "drift", "base", "policy", "spec_sha256", "verdict", "warnings"):
        assert getattr(again, name) == getattr(own, name), name
    assert own.drift is not None
    assert own.drift.eps_dist > 0
    assert own.drift.relative_weight_change > 0
    folder = workdir / "comparisons" / "initial-model-and-step-6"
    assert {path.name for path in folder.iterdir()} == {"report.json", "report.html", "grid.png", "images"}


def test_a_checkpoint_against_itself_ties_everywhere(trained: tuple[Path, EvaluationReport], cache_dir: Path) -> None:
    report = compared(trained[0], cache_dir, "4", "4")
    assert report.rewards[0].num_ties == report.num_prompts * report.seeds_per_prompt
    assert report.drift is not None
    assert (report.drift.eps_dist, report.drift.relative_weight_change) == (0, 0)


def test_swapping_two_checkpoints_turns_the_gain_round(trained: tuple[Path, EvaluationReport], cache_dir: Path) -> None:
    forth, back = (compared(trained[0], cache_dir, *sides) for sides in (("4", "6"), ("6", "4")))
    assert forth.rewards[0].gain == pytest.approx(-back.rewards[0].gain)
    assert (forth.base.label, forth.policy.label) == ("step 4", "step 6")
    assert forth.rewards[0].gain != 0
    assert forth.drift is not None
    assert back.drift is not None
    assert forth.drift.relative_weight_change == pytest.approx(back.drift.relative_weight_change)


@pytest.mark.parametrize(
    "adapter",
    [{"type": "lora", "rank": 2}, {"type": "lora", "rank": 3}, {"type": "full"}],
    ids=["same", "rank", "full"],
)
def test_the_checkpoint_of_another_work_folder_may_have_another_adapter(
    trained: tuple[Path, EvaluationReport],
    tiny_model: Path,
    tiny_pairs: Path,
    cache_dir: Path,
    tmp_path: Path,
    adapter: dict[str, object],
) -> None:
    workdir, own = trained
    spec = tiny_spec(tiny_model, tiny_pairs, adapter=adapter, seed=8)
    other = report_of(list(align(spec, tmp_path, cache_dir=cache_dir)))
    report = compared(workdir, cache_dir, "6", str(tmp_path))
    assert report.base.files == own.policy.files
    assert report.policy.files == other.policy.files
    assert report.policy.label == f"step 6 of run {spec.sha256()[:8]}"
    assert report.spec_sha256 == spec.sha256()
    assert [image.base for image in report.images] == [image.policy for image in own.images]
    assert report.drift is not None
    assert report.drift.relative_weight_change > 0
    assert torch.isfinite(torch.tensor(report.drift.eps_dist))


def test_what_is_no_checkpoint_is_named_with_those_there_are(
    trained: tuple[Path, EvaluationReport], cache_dir: Path, tmp_path: Path
) -> None:
    workdir, _ = trained
    with pytest.raises(CheckpointError, match="no checkpoint of step 5; there are: 2, 4, 6"):
        folder_of("5", workdir)
    with pytest.raises(
        CheckpointError, match="neither initial, latest, result, a step, a checkpoint nor a work folder"
    ):
        folder_of(str(tmp_path), workdir)
    assert folder_of("latest", workdir) == workdir / "checkpoints" / "step-00000006"
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        compared(tmp_path, cache_dir, "initial", "latest")


def test_a_run_from_another_initial_model_is_refused(
    trained: tuple[Path, EvaluationReport], tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    other = save_tiny_pipeline(tmp_path / "v", prediction_type="v_prediction")
    list(align(tiny_spec(other, tiny_pairs), tmp_path / "work", cache_dir=cache_dir))
    with pytest.raises(CheckpointError, match="another initial model"):
        compared(trained[0], cache_dir, "initial", str(tmp_path / "work"))


@pytest.mark.slow
def test_the_command_writes_the_report_and_names_what_it_cannot(
    trained: tuple[Path, EvaluationReport], cache_dir: Path
) -> None:
    command = [sys.executable, "-m", "alignment_core", "compare", str(trained[0]), "--cache-dir", str(cache_dir)]
    done = subprocess.run(
        [*command, "--base", "2"], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    )
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["type"], last["page"]) == ("evaluation_completed", "comparisons/step-2-and-step-6/report.html")
    refused = subprocess.run(
        [*command, "--policy", "5"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["code"] == "no_checkpoint"
