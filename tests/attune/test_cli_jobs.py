"""The command line against a real API: jobs from files, data sets that are refused, pictures."""

import io
import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from starlette.testclient import TestClient

from alignment_core.events import RunCompleted
from alignment_core.reports import DatasetReport
from attune import standing
from attune.client import Client
from attune.watch import follow
from service.api.schemas.datasets import DATASET_REPORT_EXAMPLE
from service.main import create_app
from service.settings import Settings
from service.store import datasets, jobs, leases
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.base import JobError
from tests.attune.command import run_attune
from tests.servers.process import wait_until
from tests.service.api.live import serving
from tests.service.api.world import CATALOG, PARQUET, PNG, Api, run_started, spec_for

Attune = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    settings = Settings(data_dir=tmp_path / "data", catalog_path=CATALOG)
    settings.data_dir.mkdir()
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        yield Api(client)


@pytest.fixture
def url(api: Api) -> Iterator[str]:
    with serving(api.client.app) as address:  # pyright: ignore[reportArgumentType]
        yield address


@pytest.fixture
def attune(url: str, tmp_path: Path) -> Attune:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_attune(*arguments, "--url", url, cwd=tmp_path)

    return run


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Any], Path]:
    def write(content: Any) -> Path:
        path = tmp_path / "job.json"
        path.write_text(json.dumps(content))
        return path

    return write


# --- submitting ----------------------------------------------------------------------------------------------------


def test_a_bare_spec_and_a_whole_body_become_the_same_job(api: Api, attune: Attune, written: Callable[[Any], Path]):
    spec = spec_for(api.ready_dataset())
    bare = attune("job", "submit", str(written(spec)), "--name", "one")
    body = attune("job", "submit", str(written({"name": "two", "metadata": {"team": "design"}, "spec": spec})))
    assert (bare.returncode, body.returncode) == (0, 0), bare.stderr + body.stderr
    first, second = (api.client.get(f"/v1/jobs/{done.stdout.strip()}").json() for done in (bare, body))
    assert first["spec"] == second["spec"]
    assert (first["name"], first["metadata"]) == ("one", {})
    assert (second["name"], second["metadata"]) == ("two", {"team": "design"})


def test_a_mistake_is_told_once_with_the_file_and_the_pointer_that_holds_in_it(
    api: Api, attune: Attune, written: Callable[[Any], Path]
):
    spec = spec_for(api.ready_dataset(), stepps=3)
    path = written(spec)
    expected = "/training/stepps: unknown field; did you mean 'steps'?\n"
    for options in ([], ["--dry-run"]):
        done = attune("job", "submit", str(path), *options)
        assert (done.returncode, done.stderr) == (1, f"{path}: {expected}")
    path = written({"spec": spec})
    assert attune("job", "submit", str(path)).stderr == f"{path}: /spec{expected}"


def test_a_dry_run_says_what_the_job_would_cost(api: Api, attune: Attune, written: Callable[[Any], Path]):
    done = attune("job", "submit", str(written(spec_for(api.ready_dataset()))), "--dry-run")
    assert done.returncode == 0, done.stderr
    first = [
        line.split()[0] for line in done.stdout.splitlines() if line and not line.startswith((" ", "─", "warning"))
    ]
    assert first == ["cost", "memory", "time", "disk", "the"]
    assert "activations" in done.stdout
    assert "a guess for" in done.stdout


def test_several_mistakes_are_a_line_each(api: Api, attune: Attune, written: Callable[[Any], Path]):
    path = written({**spec_for(api.ready_dataset(), steps=0), "sead": 1})
    lines = attune("job", "submit", str(path)).stderr.splitlines()
    assert lines[0] == f"{path} cannot be used:"
    assert [line.split(":")[0] for line in lines[1:]] == ["  /training/steps", "  /sead"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            {"spec": {}, "nam": "x"},
            "/nam: unknown field; beside spec there may be metadata, name, pins, resume_from and retention",
        ),
        ({"spec": 3}, "/spec: expected a mapping, not 3"),
        ({"spec": {}, "metadata": ["a"]}, "/metadata: expected a mapping, not ['a']"),
        ({"spec": {}, "name": 3}, "/name: expected text, not 3"),
    ],
)
def test_a_body_of_another_form_is_refused(attune: Attune, written: Callable[[Any], Path], body: Any, told: str):
    path = written(body)
    assert attune("job", "submit", str(path)).stderr == f"{path}: {told}\n"


def test_a_local_dataset_that_the_server_does_not_read_is_told_how_to_get_there(
    api: Api, attune: Attune, written: Callable[[Any], Path]
):
    spec = spec_for(api.ready_dataset())
    spec["method"]["dataset"] = {"type": "local", "path": "pairs.parquet"}
    path = written(spec)
    done = attune("job", "submit", str(path))
    assert done.returncode == 1
    assert f"{path}: /method/dataset/path: this server reads no local paths" in done.stderr
    assert f"--dataset: attune job submit {path} --dataset $(attune dataset upload pairs.parquet)" in done.stderr
    assert attune("job", "submit", str(path), "--dataset", api.ready_dataset()).returncode == 0


# --- watching ------------------------------------------------------------------------------------------------------


def test_watching_tells_the_place_in_the_queue_then_the_pause_then_the_run(
    api: Api, url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(standing, "LOOK_EVERY_SECONDS", 0.05)
    first, job_id = api.new_job(), api.new_job()
    output = io.StringIO()
    with ThreadPoolExecutor(1) as executor, Client(url) as client:
        watching = executor.submit(follow, client, job_id, Console(file=output, width=200))

        def told(text: str) -> None:
            wait_until(lambda: output.getvalue().endswith(f"{text}\n"), text)

        told("queued: number 2 in the queue, waiting for 1 job to end")
        leases.claim(api.parts.store, first, "worker", 60)
        told("queued: number 1 in the queue, waiting for 1 job to end")
        jobs.request_pause(api.parts.store, DEFAULT_PROJECT_ID, job_id)
        told(f"paused at step 0; waiting for: attune job resume {job_id}")
        jobs.resume(api.parts.store, DEFAULT_PROJECT_ID, job_id)
        leases.finish(api.parts.store, first, 1, "succeeded")
        told("queued: it is next, and waits for a worker")
        attempt = api.claim(job_id)
        told("waiting for the training process to start: it imports torch and loads the model")
        api.say(job_id, attempt, run_started(api.spec_of(job_id), 4))
        told("started on cpu in fp32: 64 examples a step")
        api.say(job_id, attempt, RunCompleted(step=4))
        leases.finish(api.parts.store, job_id, attempt, "succeeded")
        assert watching.result(30).status == "succeeded"


def test_a_failure_that_may_pass_is_told_with_the_command_that_goes_on(api: Api, attune: Attune):
    job_id = api.new_job()
    error = JobError(code="trainer_killed", message="it was killed", category="system", retryable=True)
    leases.finish(api.parts.store, job_id, api.claim(job_id), "failed", error)
    watched = attune("job", "watch", job_id)
    assert watched.returncode == 1
    told = ["it was killed [trainer_killed]", f"it goes on from its last checkpoint with: attune job resume {job_id}"]
    assert watched.stderr.splitlines() == told
    assert attune("job", "resume", job_id).stdout == "queued\n"


def test_a_job_begins_from_the_latest_checkpoint_of_another(api: Api, attune: Attune, written: Callable[[Any], Path]):
    dataset_id = api.ready_dataset()
    ended = api.new_job(spec=spec_for(dataset_id))
    longer = str(written(spec_for(dataset_id, steps=9)))
    assert (
        attune("job", "submit", longer, "--resume-from", ended).stderr == f"{ended} has no checkpoint to begin from\n"
    )
    api.run(ended)
    done = attune("job", "submit", longer, "--resume-from", ended)
    assert done.returncode == 0, done.stderr
    job = api.client.get(f"/v1/jobs/{done.stdout.strip()}").json()
    begun = api.client.get(f"/v1/jobs/{ended}").json()["latest_checkpoint_id"]
    assert job["resume_from"] == {"checkpoint_id": begun}


# --- data sets and pictures ----------------------------------------------------------------------------------------


def when_uploaded(api: Api, url: str, end: Callable[[str, int], object], upload: Callable[[], Any]) -> tuple[Any, str]:
    """Do the upload in this process's stead of a worker: `end` gets the data set's id and the attempt."""

    def waiting() -> list[Any]:
        return api.client.get("/v1/datasets").json()["data"]

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(upload)
        wait_until(lambda: bool(waiting()) and waiting()[0]["status"] == "checking", "the upload")
        claim = datasets.claim(api.parts.store, waiting()[0]["id"], "worker", 60)
        assert claim is not None
        end(claim.dataset.id, claim.attempt)
        return running.result(30), claim.dataset.id


def test_a_broken_dataset_is_told_with_its_rows_and_where_there_is_more(
    api: Api, url: str, attune: Attune, tmp_path: Path
):
    (tmp_path / "pairs.parquet").write_bytes(PARQUET)
    problem = {
        "code": "undecodable_image",
        "severity": "error",
        "message": "chosen: no image",
        "count": 14,
        "rows": [*range(3, 17)],
        "details": [{"row": 3, "message": "chosen: no image"}, {"row": 4, "message": "rejected: cut off"}],
    }
    report = DatasetReport.model_validate({**DATASET_REPORT_EXAMPLE, "problems": [problem]})
    done, dataset_id = when_uploaded(
        api,
        url,
        lambda found, attempt: datasets.set_report(api.parts.store, found, attempt, report),
        lambda: attune("dataset", "upload", "pairs.parquet"),
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"{dataset_id} (pairs.parquet) cannot be used: chosen: no image [dataset_unusable]",
        "  rows 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 4 more of 2001: chosen: no image",
        "    row 3: chosen: no image",
        "    row 4: rejected: cut off",
        f"all of it: attune dataset report {dataset_id}",
    ]
    assert json.loads(attune("dataset", "report", dataset_id).stdout)["problems"] == [problem]


def test_a_file_that_could_not_be_read_is_told_by_its_name_again_and_again(
    api: Api, url: str, attune: Attune, tmp_path: Path
):
    (tmp_path / "pairs.parquet").write_bytes(PARQUET)
    error = JobError(code="unreadable_file", message="pairs.parquet: not a parquet file", category="user")
    done, dataset_id = when_uploaded(
        api,
        url,
        lambda found, attempt: datasets.fail(api.parts.store, found, attempt, error),
        lambda: attune("dataset", "upload", "pairs.parquet"),
    )
    reason = "pairs.parquet: not a parquet file"
    assert done.stderr == f"{dataset_id} (pairs.parquet) cannot be used: {reason} [unreadable_file]\n"
    again = attune("dataset", "report", dataset_id)
    assert (again.returncode, again.stdout) == (1, "")
    assert reason in again.stderr


def test_a_file_that_could_not_be_read_comes_with_what_to_do(api: Api, url: str, attune: Attune, tmp_path: Path):
    (tmp_path / "pairs.parquet").write_bytes(PARQUET)
    error = JobError(code="missing_column", message="no column prompt", category="user", hint="Say it with columns.")
    done, dataset_id = when_uploaded(
        api,
        url,
        lambda found, attempt: datasets.fail(api.parts.store, found, attempt, error),
        lambda: attune("dataset", "upload", "pairs.parquet"),
    )
    assert done.stderr.splitlines() == [
        f"{dataset_id} (pairs.parquet) cannot be used: no column prompt [missing_column]",
        "Say it with columns.",
    ]


def test_the_newest_picture_of_a_job_is_saved_where_it_is_wanted(api: Api, url: str, attune: Attune, tmp_path: Path):
    job_id = api.new_job()
    assert attune("job", "samples", job_id).stderr == f"{job_id} has no pictures yet\n"
    api.run(job_id)
    done = attune("job", "samples", job_id, "--out", "picture.png")
    assert (done.returncode, done.stdout) == (0, "picture.png\n")
    assert (tmp_path / "picture.png").read_bytes() == PNG
    assert attune("job", "samples", job_id).stdout == f"{job_id}-step-4.png\n"
    assert (tmp_path / f"{job_id}-step-4.png").read_bytes() == PNG


def test_waiting_for_a_dataset_ends_in_time(api: Api, url: str):
    with Client(url) as client:
        (dataset_id,) = [api.client.post("/v1/datasets", files={"file": ("a.parquet", PARQUET)}).json()["id"]]
        with pytest.raises(TimeoutError, match="still checking"):
            client.wait_for_dataset(dataset_id, timeout_seconds=0.3)


def test_what_is_deleted_is_gone_and_what_is_in_use_is_told_with_what_to_do(api: Api, attune: Attune):
    dataset_id = api.ready_dataset()
    job_id = api.new_job(spec=spec_for(dataset_id))
    refused = attune("dataset", "delete", dataset_id)
    assert refused.returncode == 1
    assert f"{job_id} need it; cancel them or let them end" in refused.stderr
    api.run(job_id)
    checkpoint_id = api.checkpoint_id(job_id)
    assert "even_result" in attune("checkpoint", "delete", checkpoint_id).stderr
    for command in (("checkpoint", checkpoint_id, "--even-result"), ("job", job_id), ("dataset", dataset_id)):
        kind, *arguments = command
        assert attune(kind, "delete", *arguments).stdout == "deleted\n"
    assert [info.key for info in api.parts.objects.list("projects/") if dataset_id in info.key] == []


def test_a_checkpoint_is_forked_and_the_fork_says_where_it_comes_from(api: Api, attune: Attune):
    job_id = api.new_job()
    api.run(job_id)
    longer = attune("checkpoint", "fork", job_id, "--steps", "8", "--name", "longer")
    assert longer.returncode == 0, longer.stderr
    child = longer.stdout.strip()
    parent, own = attune("job", "ancestry", child).stdout.splitlines()[2:]
    assert parent.split() == [job_id, "ancestor"]
    assert own.startswith(f"{child}   this job, queued   resume at step 4")
    assert own.split()[-1] == "longer"
    assert "--reference base|checkpoint" in attune("checkpoint", "fork", job_id).stderr


def test_a_sweep_is_started_from_a_file_and_shown_as_a_table(api: Api, attune: Attune, written: Callable[[Any], Path]):
    search = {"type": "grid", "axes": {"training.learning_rate": [1e-4, 2e-4]}}
    body = {"spec": spec_for(api.ready_dataset()), "search": search, "name": "rates"}
    assert attune("sweep", "list").stdout == "no sweep\n"
    started = attune("sweep", "start", str(written(body)))
    assert started.returncode == 0, started.stderr
    shown = attune("sweep", "show", started.stdout.strip())
    assert "learning_rate 0.0002" in shown.stdout
    assert "none is called best yet" in shown.stdout
    assert "cancel it first" in attune("sweep", "delete", started.stdout.strip()).stderr
    assert attune("sweep", "cancel", started.stdout.strip()).returncode == 0
    assert attune("sweep", "delete", started.stdout.strip()).stdout == "deleted\n"


def test_a_sweep_takes_another_data_set_than_its_files(api: Api, attune: Attune, written: Callable[[Any], Path]):
    dataset_id = api.ready_dataset()
    spec = {**spec_for("ds_" + "0" * 26), "method": {"type": "diffusion_dpo", "beta": 500}}
    body = {"spec": spec, "search": {"type": "list", "points": [{"seed": 1}]}}
    started = attune("sweep", "start", str(written(body)), "--dataset", dataset_id)
    assert started.returncode == 0, started.stderr
    (job,) = api.client.get("/v1/jobs").json()["data"]
    assert api.client.get(f"/v1/jobs/{job['id']}").json()["spec"]["method"]["dataset"]["id"] == dataset_id


def test_a_picture_and_a_report_are_deleted_by_themselves(api: Api, attune: Attune):
    job_id = api.new_job()
    api.run(job_id)
    (sample,) = api.client.get(f"/v1/jobs/{job_id}/samples").json()["data"]
    assert attune("job", "delete-sample", job_id, sample["id"]).stdout == "deleted\n"
    assert attune("job", "delete-report", job_id).stdout == "deleted\n"
    assert api.client.get(f"/v1/jobs/{job_id}/samples").json()["data"] == []
    assert api.client.get(f"/v1/jobs/{job_id}/report").status_code == 404
