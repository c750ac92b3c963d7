"""The lists of the command line, read on a narrow terminal, against a real API."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import alignment_core
import attune as package
from attune.client import Client
from attune.errors import AttuneError
from attune.tables import age_of, bytes_of
from tests.attune.rude_server import rude_server
from tests.attune.test_cli_jobs import api, attune, url  # noqa: F401  fixtures
from tests.service.api.browsable import browsable
from tests.service.api.world import Api

Attune = Callable[..., subprocess.CompletedProcess[str]]
NARROW = 80


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(NARROW))


def test_jobs_fit_a_narrow_terminal_with_whole_ids_and_are_chosen_by_status(api: Api, attune: Attune) -> None:  # noqa: F811
    ids = [api.new_job(name="n" * 150) for _ in "ab"]
    api.client.post(f"/v1/jobs/{ids[0]}/cancel")
    lines = attune("job", "list").stdout.splitlines()
    assert max(len(line) for line in lines) <= NARROW
    assert [line.split()[0] for line in lines[2:]] == [ids[1], ids[0]], "newest first, one line each"
    chosen = attune("job", "list", "--status", "cancelled").stdout
    assert ids[0] in chosen
    assert ids[1] not in chosen


def test_data_sets_and_the_catalog_are_listed(api: Api, attune: Attune) -> None:  # noqa: F811
    dataset = api.ready_dataset()
    assert dataset in attune("dataset", "list").stdout
    assert json.loads(attune("dataset", "get", dataset).stdout)["status"] == "ready"
    models = attune("models").stdout
    assert "shapes" in models
    assert "1.1 M" in models
    methods = attune("methods").stdout
    assert "diffusion_dpo" in methods
    assert "Q is a mean" not in methods, "a method's first sentences alone"
    assert "colorfulness" in attune("rewards").stdout


def test_rows_of_a_data_set_are_shown_with_what_is_wrong_with_them(api: Api, attune: Attune, url: str) -> None:  # noqa: F811
    dataset = browsable(api)
    lines = attune("dataset", "pairs", dataset).stdout.splitlines()
    assert max(len(line) for line in lines) <= NARROW
    assert [line.split()[:2] for line in lines if line.split()[:1] == ["3"]] == [["3", "tie"]]
    found = attune("dataset", "pairs", dataset, "--problem", "contradictory_pairs", "--json").stdout.splitlines()
    assert [json.loads(line)["row"] for line in found] == [2, 7]
    behind = attune("dataset", "pairs", dataset, "--after", "7", "--json").stdout.splitlines()
    assert [json.loads(line)["prompt"] for line in behind] == ["prompt 8"]
    assert attune("dataset", "pairs", dataset, "--problem", "long_prompt").stdout.strip() == "no such row"
    with Client(url) as client:
        first, *others = client.dataset_pairs(dataset)
        assert [one.row for one in others] == list(range(2, 9))
        assert first.chosen is not None
        assert client.pair_thumbnail(dataset, first.row, "chosen").startswith(b"\xff\xd8")
        with pytest.raises(AttuneError, match="no picture"):
            client.pair_thumbnail(dataset, 6, "rejected")


def test_weights_are_uploaded_listed_shown_and_deleted(api: Api, attune: Attune, tmp_path: Path) -> None:  # noqa: F811
    ready = api.ready_weights()
    lines = attune("weights", "list").stdout.splitlines()
    assert lines[2].split()[:4] == [ready, "ready", "kohya", "8"]
    assert max(len(line) for line in lines) <= NARROW
    assert json.loads(attune("weights", "get", ready).stdout)["report"]["num_layers"] == 128
    path = tmp_path / "style.bin"
    path.write_bytes(b"PK\x03\x04 a torch archive")
    refused = attune("weights", "upload", str(path))
    assert refused.returncode == 1
    assert "pickled weights" in refused.stderr
    assert attune("weights", "delete", ready).stdout == "deleted\n"
    assert attune("weights", "list").stdout == "no weights\n"


def test_unfinished_uploads_are_listed_and_deleted(api: Api, attune: Attune) -> None:  # noqa: F811
    asked = {"purpose": "prompt_set", "filename": "prompts.txt", "size_bytes": 2_000_000}
    upload_id = api.client.post("/v1/uploads", json=asked).json()["id"]
    lines = attune("uploads", "list").stdout.splitlines()
    assert lines[2].split() == [upload_id, "prompt_set", "0", "B", "2.0", "MB", "prompts.txt"]
    assert max(len(line) for line in lines) <= NARROW
    assert attune("uploads", "delete", upload_id).stdout == "deleted\n"
    assert attune("uploads", "list").stdout == "no unfinished upload\n"


def test_prompts_are_uploaded_listed_shown_downloaded_and_deleted(
    api: Api,  # noqa: F811
    attune: Attune,  # noqa: F811
    tmp_path: Path,
) -> None:
    path = tmp_path / "parti.tsv"
    path.write_text("Prompt\tCategory\na red circle\tBasic\n\tBasic\na blue square\tBasic\na red circle\tBasic\n")
    uploaded = attune("prompts", "upload", str(path), "--name", "Parti")
    found = uploaded.stdout.strip()
    assert "left out: 1 row repeats an earlier prompt (4)" in uploaded.stderr
    assert "left out: 1 row is empty (2)" in uploaded.stderr
    lines = attune("prompts", "list").stdout.splitlines()
    assert (lines[2].split()[:2], lines[2].split()[-1]) == ([found, "2"], "Parti")
    assert max(len(line) for line in lines) <= NARROW
    assert attune("prompts", "show", found).stdout == "a red circle\na blue square\n"
    saved = tmp_path / "saved.jsonl"
    attune("prompts", "download", found, str(saved))
    assert saved.read_text() == '{"prompt": "a red circle"}\n{"prompt": "a blue square"}\n'
    path.write_text("Prompt\n" + "x" * 2001 + "\n")
    refused = attune("prompts", "upload", str(path))
    assert refused.returncode == 1
    assert "row 1: has 2001 characters" in refused.stderr
    assert attune("prompts", "delete", found).stdout == "deleted\n"
    assert api.client.get("/v1/prompt_sets").json()["data"] == []


def test_a_checkpoint_is_promoted_listed_as_a_model_and_its_name_taken_away(api: Api, attune: Attune) -> None:  # noqa: F811
    job = api.new_job()
    api.run(job)
    checkpoint = api.checkpoint_id(job)
    promoted = attune("promote", job).stdout.splitlines()
    assert promoted == [
        f"champion is {checkpoint}: colorfulness +0.17 (+0.15 .. +0.19)",
        'jobs may begin from it: "model": "@champion"',
    ]
    assert "@champion" in attune("models").stdout
    lines = attune("alias", "list").stdout.splitlines()
    assert lines[2].split()[:2] == ["champion", checkpoint]
    attune("promote", checkpoint, "--alias", "candidate", "--reason", "to be tried")
    assert attune("alias", "delete", "champion").stdout == "deleted\n"
    history = attune("alias", "history").stdout
    assert [line.split()[0] for line in history.splitlines()[2:]] == ["champion", "candidate", "champion"]
    assert "(taken away)" in history
    unforced = attune("promote", checkpoint, "--force")
    assert unforced.returncode == 1
    assert "say why" in unforced.stderr


def test_events_metrics_and_checkpoints_of_a_job_are_shown(api: Api, attune: Attune) -> None:  # noqa: F811
    job = api.new_job()
    assert attune("checkpoint", "list", job).stdout == "no checkpoint yet\n"
    assert attune("job", "metrics", job).stdout == "no metrics yet\n"
    api.run(job)
    events = _objects(attune("job", "events", job))
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    steps = [event for event in events if event["type"] == "step_completed"]
    assert _objects(attune("job", "events", job, "--type", "step_completed")) == steps
    assert _objects(attune("job", "events", job, "--follow")) == events, "the job has ended"
    assert [point["step"] for point in _objects(attune("job", "metrics", job, "--json"))] == [1, 2, 3, 4]
    assert "0.69" in attune("job", "metrics", job, "--keys", "loss").stdout
    assert api.checkpoint_id(job) in attune("checkpoint", "list", job).stdout


def test_a_watched_job_ends_with_the_verdict_the_gain_and_the_next_command(api: Api, attune: Attune) -> None:  # noqa: F811
    job = api.new_job()
    api.run(job)
    lines = attune("job", "watch", job).stdout.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith("succeeded: ")]
    assert lines[at:] == [
        "succeeded: better than the model it started from",
        "  colorfulness  0.410 -> 0.580  gain +0.170 (+0.150 .. +0.190)",
        f"the proof as a page:   attune report {job} --html report.html",
        f"the aligned weights:   attune checkpoint download {job} aligned",
    ]


def _objects(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_key_is_an_option_of_every_command_that_speaks_to_a_server() -> None:
    with rude_server() as server:
        command = [sys.executable, "-m", "attune", "job", "list", "--api-key", "attune_mine", "--url", server.url]
        subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        ((_, headers),) = server.requests
    assert headers["Authorization"] == "Bearer attune_mine"


def test_the_version_is_told() -> None:
    done = subprocess.run([sys.executable, "-m", "attune", "--version"], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"attune {version('attune')}\n"


def test_the_packages_show_their_names() -> None:
    assert {"AttuneError", "Client"} <= set(dir(package))
    assert {"AlignmentError", "JobSpec", "align"} <= set(dir(alignment_core))


def test_sizes_and_ages_are_read_at_a_glance() -> None:
    assert [bytes_of(size) for size in (None, 999, 3_811_204, 4 * 10**15)] == ["", "999 B", "3.8 MB", "4000.0 TB"]
    assert age_of(datetime.now(UTC) - timedelta(hours=3, minutes=50)) == "3 h ago"
