"""The command line tells users what to mend, and shows runs and proofs."""

import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from alignment_core.events import CheckpointSaved, Event, PhaseProgressed, StepCompleted, WarningRaised
from alignment_core.reports import EvaluationReport
from alignment_core.spec import JobSpec
from attune.local_server import demo_assets
from attune.proof import table_of
from attune.specs import read_spec
from attune.watch import BarView, Counts, PlainView, eta_of, figures_of, show_all
from tests.attune.command import run_attune as attune
from tests.attune.rude_server import JOB, rude_server

STEP = StepCompleted(
    step=8,
    total_steps=80,
    metrics={"loss": 0.64123, "implicit_accuracy": 0.75, "margin": 0.1184},
    step_seconds=0.1,
    eta_seconds=12.3,
)


def test_the_servers_problem_is_shown_without_a_traceback() -> None:
    with rude_server() as server:
        done = attune("job", "get", "job_1", "--url", server.url)
    assert done.returncode == 1
    assert done.stderr == "there is no job [job_not_found]\n  /id: unknown\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["dataset", "upload", "{folder}/none"], "{folder}/none: No such file or directory"),
        (["up", "--data-dir", "{file}", "--port", "0"], "{file}: File exists"),
        (["up", "--data-dir", "{file}/x", "--port", "0"], "{file}/x: Not a directory"),
        (["up", "--data-dir", "{folder}", "--host", "nowhere.invalid"], "--host nowhere.invalid: "),
        (["up", "--catalog", "{folder}/none"], "--catalog {folder}/none: no such file"),
        (["job", "submit", "{file}", "--dataset", "ds_1"], "{file}: /method: expected a mapping, not 3"),
        (["job", "submit", "{folder}"], "{folder} cannot be read"),
        (
            ["job", "list", "--url", "localhost:8000"],
            "the server's address 'localhost:8000' lacks its scheme; write http://",
        ),
        (["job", "list", "--url", "http://a:b"], "the server's address 'http://a:b' is none"),
        (["job", "list", "--url", "ftp://a"], "the server's address 'ftp://a' is none"),
        (["job", "list", "--url", "http://127.0.0.1:1"], "http://127.0.0.1:1 did not answer"),
    ],
)
def test_what_cannot_work_is_one_sentence_and_no_traceback(tmp_path: Path, arguments: list[str], expected: str) -> None:
    file = tmp_path / "spec.json"
    file.write_text('{"method": 3}')
    places = {"folder": tmp_path, "file": file}
    done = attune(*(argument.format(**places) for argument in arguments))
    assert done.returncode == 1
    assert done.stderr.startswith(expected.format(**places)), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_port_that_does_not_exist_is_refused() -> None:
    done = attune("up", "--port", "99999")
    assert done.returncode == 2
    assert "65535" in done.stderr


def test_settings_that_cannot_work_are_shown_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "catalog.json").write_text('{"models": {"shapes": {"type": "local"}}}')
    done = attune("up", "--data-dir", str(tmp_path / "a"), "--port", "0", "--catalog", str(tmp_path / "catalog.json"))
    assert done.returncode == 1
    assert "field models.shapes.local.family" in done.stderr
    monkeypatch.setenv("ATTUNE_LEASE_SECONDS", "1")
    monkeypatch.setenv("ATTUNE_S3_SECRET_ACCESS_KEY", "hush")
    late = attune("up", "--data-dir", str(tmp_path / "b"), "--port", "0")
    assert "ATTUNE_LEASE_SECONDS (1)" in late.stderr
    for shown in (done.stderr, late.stderr):
        assert "Traceback" not in shown
        assert "hush" not in shown


@pytest.mark.parametrize("columns", [80, 60, 36])
def test_a_list_of_jobs_shows_whole_ids_however_narrow_the_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    with rude_server() as server:
        done = attune("job", "list", "--url", server.url)
    assert JOB["id"] in done.stdout


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


def test_the_figures_of_a_step_are_loss_accuracy_and_margin() -> None:
    assert figures_of(STEP) == ["loss 0.641", "accuracy 0.750", "margin +0.118"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, ""), (12.3, "eta 12 s"), (119, "eta 119 s"), (320, "eta 5:20"), (11_100, "eta 3:05:00")],
)
def test_long_times_are_shown_in_minutes_and_hours(seconds: float | None, shown: str) -> None:
    assert eta_of(STEP.model_copy(update={"eta_seconds": seconds})) == shown


EVENTS = [
    PhaseProgressed(phase="caching", done=5, total=10),
    PhaseProgressed(phase="caching", done=10, total=10),
    PhaseProgressed(phase="caching", done=4, total=4, cached=1),  # the validation split
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
        view.wait("queued: number 2 in the queue, waiting for 2 jobs to end")
        show_all(view, EVENTS)
    assert output.getvalue().splitlines() == [
        "queued: number 2 in the queue, waiting for 2 jobs to end",
        "encoding 5/10  images and prompts",
        "encoding 10/10  images and prompts",
        "encoding 14/14  images and prompts  1 cached",
        "warning: a thing is odd",
        "step 8/80  eta 12 s  loss 0.641  accuracy 0.750  margin +0.118",
        "step 80/80  eta 0 s  loss 0.641  accuracy 0.750  margin +0.118",
        "checkpoint of step 80 stored (1.2 MB)",
    ]


def test_an_attempt_that_starts_over_counts_from_nothing() -> None:
    counts = Counts()
    first, second = (PhaseProgressed(phase="caching", done=done, total=10) for done in (10, 3))
    assert [counts.add(first), counts.add(second)] == [(10, 10), (13, 20)]
    counts.reset()
    assert counts.add(second) == (3, 10)


def bars_of(events: Sequence[Event | None], width: int) -> list[str]:
    """The lines that stay on a terminal of that width."""
    output = io.StringIO()
    console = Console(file=output, width=width, force_terminal=True, color_system=None)
    with BarView(console) as view:
        view.wait("queued: number 2 in the queue, waiting for 2 jobs to end")
        show_all(view, events)
    last = output.getvalue().rpartition("\x1b[2K")[2].replace("\x1b[?25h", "")
    return last.splitlines()


@pytest.mark.parametrize(
    ("width", "figures"),
    [(120, "loss 0.641  accuracy 0.750  margin +0.118"), (80, "loss 0.641  accuracy 0.750"), (40, "")],
)
def test_count_and_eta_are_whole_at_every_width_and_figures_go_first(width: int, figures: str) -> None:
    step = STEP.model_copy(update={"step": 9000, "total_steps": 12_000, "eta_seconds": 4000.0})
    lines = bars_of([*EVENTS[:3], step], width)
    assert all(len(line) <= width for line in lines)
    encoding, training = (line.rstrip() for line in lines if line.strip())
    assert encoding.startswith("encoding")
    assert "14/14" in encoding
    assert f"9000/12000 eta 1:06:40 {figures}".rstrip() in training
    assert training.endswith(figures or "1:06:40")
    assert "━" * 3 in training


def test_the_proof_has_a_row_a_reward(tmp_path: Path) -> None:
    interval = {"low": 0.15, "high": 0.19, "confidence": 0.95}
    row = {
        "name": "colorfulness",
        "base_mean": 0.41,
        "policy_mean": 0.58,
        "gain": 0.17,
        "gain_interval": interval,
        "win_rate": 1.0,
        "bootstrap_interval": interval,
        "num_ties": 0,
    }
    report = EvaluationReport.model_validate(
        {
            "step": 80,
            "base": {"label": "initial model", "step": None, "spec_sha256": None},
            "policy": {"label": "step 80", "step": 80, "spec_sha256": "0" * 64},
            "num_prompts": 57,
            "seeds_per_prompt": 2,
            "num_inference_steps": 12,
            "guidance_scale": 2.5,
            "primary_reward": "colorfulness",
            "verdict": "improved",
            "rewards": [row],
            "prompt_following": {**row, "name": "judge", "win_rate": 0.5, "num_ties": 114},
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
    for expected in (
        "improved: 57 held-out prompts x 2 seeds",
        "95% interval",
        "colorfulness",
        "+0.170",
        "+0.150 .. +0.190",
        "1.00",
    ):
        assert expected in output.getvalue()
    (judged,) = [line for line in output.getvalue().splitlines() if "prompt-following" in line]
    assert "ties" in judged
    assert "0.50" not in judged, "a draw everywhere is no even fight"
    assert "-0.100" in output.getvalue()
