"""The command line tells users what to mend, and shows runs and proofs."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from alignment_core.events import CheckpointSaved, PhaseProgressed, StepCompleted, WarningRaised
from alignment_core.reports import EvaluationReport
from alignment_core.spec import JobSpec
from attune.local_server import demo_assets
from attune.proof import table_of
from attune.specs import read_spec
from attune.watch import BarView, PlainView, figures_of, show_all
from tests.attune.rude_server import rude_server

STEP = StepCompleted(
    step=8,
    total_steps=80,
    metrics={"loss": 0.64123, "implicit_accuracy": 0.75, "margin": 0.1184},
    step_seconds=0.1,
    eta_seconds=12.3,
)


def attune(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "attune", *arguments], capture_output=True, text=True, timeout=60)


def test_the_servers_problem_is_shown_without_a_traceback() -> None:
    with rude_server() as server:
        done = attune("job", "get", "job_1", "--url", server.url)
    assert done.returncode == 1
    assert done.stderr == "there is no job [job_not_found]\n  /id: unknown\n"


def test_a_spec_with_mistakes_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("model: {type: catalog, name: shapes}\nmethod: {type: diffusion_dpo, beta: -1}\n")
    with rude_server() as server:
        done = attune("job", "submit", str(spec), "--url", server.url)
        assert server.requests == []
    assert done.returncode == 1
    assert "method.beta" in done.stderr
    assert "method.dataset" in done.stderr


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "not well formed"),
        ("a.yaml", "a: [", "not well formed"),
        ("a.yaml", "- 1", "must hold a mapping"),
        ("a.yaml", "a: !!python/object:os.system {}", "not well formed"),
    ],
)
def test_a_spec_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_spec(path)
    assert str(path) in str(caught.value)


def test_the_demos_job_is_a_valid_spec() -> None:
    assets = demo_assets()
    assert assets is not None
    spec = JobSpec.model_validate(read_spec(assets.parent / "job.yaml"))
    assert spec.evaluation.rewards[0].type == "colorfulness"
    assert spec.evaluation.prompt_following is not None


def test_the_figures_of_a_step_are_eta_loss_accuracy_and_margin() -> None:
    assert figures_of(STEP) == "eta 12 s  loss 0.641  accuracy 0.750  margin +0.118"


EVENTS = [
    PhaseProgressed(phase="caching", done=5, total=10),
    PhaseProgressed(phase="caching", done=10, total=10),
    WarningRaised(code="odd", message="a thing is odd"),
    STEP,
    STEP.model_copy(update={"step": 9}),
    STEP.model_copy(update={"step": 80, "eta_seconds": 0.0}),
    CheckpointSaved(step=80, path="checkpoints/step-00000080", kind="lora", is_final=True, size_bytes=1_200_000),
    None,
]


def test_plain_lines_are_few_and_have_the_last_of_each_phase() -> None:
    output = io.StringIO()
    with PlainView(Console(file=output, width=200)) as view:
        show_all(view, EVENTS)
    assert output.getvalue().splitlines() == [
        "caching 5/10",
        "caching 10/10",
        "warning: a thing is odd",
        "step 8/80  eta 12 s  loss 0.641  accuracy 0.750  margin +0.118",
        "step 80/80  eta 0 s  loss 0.641  accuracy 0.750  margin +0.118",
        "checkpoint of step 80 stored (1.2 MB)",
    ]


def test_bars_show_every_phase() -> None:
    output = io.StringIO()
    with BarView(Console(file=output, width=200, force_terminal=True)) as view:
        show_all(view, EVENTS)
    text = output.getvalue()
    assert "caching" in text
    assert "80/80" in text
    assert "margin +0.118" in text


def test_the_proof_has_a_row_a_reward(tmp_path: Path) -> None:
    interval = {"low": 0.15, "high": 0.19, "confidence": 0.95}
    row = {
        "name": "colorfulness",
        "base_mean": 0.41,
        "policy_mean": 0.58,
        "gain": 0.17,
        "gain_interval": interval,
        "win_rate": 1.0,
        "win_rate_interval": interval,
        "num_ties": 0,
    }
    report = EvaluationReport.model_validate(
        {
            "step": 80,
            "num_prompts": 57,
            "seeds_per_prompt": 2,
            "num_inference_steps": 12,
            "guidance_scale": 2.5,
            "primary_reward": "colorfulness",
            "verdict": "improved",
            "rewards": [row],
            "prompt_following": {**row, "name": "judge"},
            "diversity": {"base": 0.2, "policy": 0.1},
            "spec_sha256": "0" * 64,
            "base_model_sha256": "0" * 64,
            "versions": {},
            "elapsed_seconds": 1.0,
            "images": [],
        }
    )
    output = io.StringIO()
    Console(file=output, width=120).print(table_of(report))
    for expected in ("improved: 57 held-out prompts x 2 seeds", "colorfulness", "+0.170", "+0.150 .. +0.190", "1.00"):
        assert expected in output.getvalue()
    assert "prompt-following" in output.getvalue()
    assert "-0.100" in output.getvalue()
