"""One scenario, on the embedded parts and on real servers: from an upload to images drawn by plain diffusers.

POST, SSE, cancel; then a worker killed in the middle of a job, whose lease ends, whose job another worker takes and
resumes from the last checkpoint, to the very weights that an undisturbed run ends with.
"""

import io
import json
import signal
import zipfile
from collections.abc import Callable, Iterator
from os import kill
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file

from alignment_core.events import CheckpointSaved, RunStarted, StepCompleted, WarningRaised
from attune.client import Client
from attune.resources.runs import JobEvent
from tests.e2e.conftest import ASSETS, Deployment
from tests.servers.otlp import Collector, SentSpan, collecting
from tests.servers.process import wait_until

Weights = dict[str, np.ndarray]

LORA = "pytorch_lora_weights.safetensors"
STEPS, EVERY = 40, 10
PROMPTS = ["a small red circle", "a big blue square", "a green cross on the left", "a yellow triangle at the top"]


def spec_of(dataset: dict[str, str], model: dict[str, str], steps: int) -> dict[str, Any]:
    return {
        "model": model,
        "method": {"type": "diffusion_dpo", "dataset": dataset, "beta": 1000},
        "adapter": {"type": "lora", "rank": 4},
        "training": {
            "steps": steps,
            "batch_size": 8,
            "gradient_accumulation_steps": 1,
            "learning_rate": 1e-3,
        },
        "checkpoints": {"every": EVERY},
        "evaluation": {
            "prompts": PROMPTS,
            "seeds_per_prompt": 1,
            "num_inference_steps": 4,
            "guidance_scale": 2.5,
            "batch_size": 40,
            "grid_prompts": 2,
            "bootstrap_resamples": 200,
            "rewards": [{"type": "colorfulness"}],
        },
        "seed": 3,
    }


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Traces of the processes that are started after it."""
    with collecting() as found:
        for name, value in {"ATTUNE_TRACES": "true", **found.environment()}.items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture(scope="session")
def undisturbed_weights(tmp_path_factory: pytest.TempPathFactory, run_alone: Callable[[Path], Path]) -> Weights:
    """The weights that the scenario's second job ends with when nothing happens to it."""
    dataset = {"type": "local", "path": str(ASSETS / "pairs.parquet")}
    spec = tmp_path_factory.mktemp("spec") / "spec.json"
    spec.write_text(json.dumps(spec_of(dataset, {"type": "local", "path": str(ASSETS / "model")}, STEPS)))
    return load_file(run_alone(spec) / "checkpoints" / f"step-{STEPS:08d}" / LORA)


@pytest.mark.timeout(280)
def test_a_job_from_post_to_pictures_survives_the_loss_of_its_worker(
    collector: Collector, deployment: Deployment, undisturbed_weights: Weights, tmp_path: Path
) -> None:
    first = deployment.start_worker("first")
    with deployment.client as client:
        dataset = client.wait_for_dataset(client.upload_dataset(ASSETS / "pairs.parquet").id, timeout_seconds=60)
        assert dataset.num_usable_rows
        stored, shapes = {"type": "stored", "id": dataset.id}, {"type": "catalog", "name": "shapes"}
        assert client.validate(spec_of(stored, shapes, STEPS)).valid

        cancelled_after_its_first_checkpoint(client, spec_of(stored, shapes, 5000))

        job = client.create_job(spec_of(stored, shapes, STEPS), name="survivor")
        seen = until(client, job.id, lambda event: is_step(event, EVERY + 2))
        assert checkpoints_in(seen) == [EVERY], deployment.processes[-1].log_tail()
        kill(first.pid, signal.SIGKILL)
        deployment.start_worker("second")
        rest = list(client.events(job.id, after=seen[-1].id))
        job = client.wait_for_job(job.id, timeout_seconds=60)
        assert (job.status, job.attempt, job.progress.percent) == ("succeeded", 2, 100)
        wait_until(lambda: not deployment.training_processes(job.id), "the end of every training process")

        told_without_a_gap(seen + rest)
        assert any(isinstance(one.event, WarningRaised) and one.event.code == "worker_lost" for one in rest)
        (resumed,) = [one.event for one in rest if isinstance(one.event, RunStarted)]
        assert resumed.resumed_from_step == EVERY

        assert job.latest_checkpoint_id is not None
        aligned = client.download_checkpoint(job.latest_checkpoint_id, tmp_path / "aligned")
        weights = load_file(aligned / LORA)
        assert weights.keys() == undisturbed_weights.keys()
        assert all(np.array_equal(weights[name], undisturbed_weights[name]) for name in weights), "bit for bit"
        assert files_come_from_where_they_are_stored(deployment, job.latest_checkpoint_id)
        unpacked = unpack_the_zip(deployment, job.latest_checkpoint_id, tmp_path / "unpacked")
        assert contents_of(unpacked) == contents_of(aligned), "curl and the client leave the same folder"
        assert draws_other_images_than_its_base(unpacked)

        report = client.report(job.id)
        assert [comparison.name for comparison in report.rewards] == ["colorfulness"]
        assert len(report.images) == len(PROMPTS)
        picture = client.download_sample(client.samples(job.id)[-1], tmp_path / "picture.png")
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert [point.step for point in client.metrics(job.id, keys=["loss"])] == list(range(1, STEPS + 1))

        wait_until(lambda: "uploading" in {one.name for one in trace_of(collector, job.id)}, "the last span")
        all_of_it_is_one_trace(trace_of(collector, job.id), job.id)
        assert not [prompt for prompt in PROMPTS if prompt.encode() in collector.bodies()]


def trace_of(collector: Collector, job_id: str) -> list[SentSpan]:
    """The spans of the trace that the job's request began."""
    spans = collector.spans()
    trace_ids = {one.trace_id for one in spans if one.attributes.get("attune.location") == f"/v1/jobs/{job_id}"}
    return [one for one in spans if one.trace_id in trace_ids]


def all_of_it_is_one_trace(spans: list[SentSpan], job_id: str) -> None:
    """Request, attempts, phases, steps and stored checkpoints; the killed worker's attempt is told by the one that found it."""
    by_id = {one.span_id: one for one in spans}
    (request,) = [one for one in spans if one.service == "attune-api"]
    assert (request.name, request.parent_id) == ("POST /v1/jobs", "")
    first, second = sorted((one for one in spans if one.name == "attempt"), key=lambda one: one.start)
    assert (first.attributes["attune.state"], second.attributes["attune.state"]) == ("lost", "succeeded")
    assert second.attributes["attune.resumed_from_step"] == EVERY
    below: dict[str, SentSpan] = {}
    for attempt in (first, second):
        assert (by_id[attempt.parent_id], attempt.attributes["attune.job_id"]) == (request, job_id)
        below = {one.name: one for one in spans if one.parent_id == attempt.span_id}
        assert {"starting", "loading", "training", "saving", "store"} <= below.keys()
    assert {"sampling", "evaluating", "uploading"} <= below.keys()
    of_second = [
        by_id[one.parent_id]
        for one in spans
        if one.name == "steps" and by_id[one.parent_id].parent_id == second.span_id
    ]
    assert {one.name for one in of_second} == {"training"}
    last = max(int(str(one.attributes["attune.last_step"])) for one in spans if one.name == "steps")
    assert last == STEPS


def cancelled_after_its_first_checkpoint(client: Client, spec: dict[str, Any]) -> None:
    """A cancelled job stops within seconds, tells its listeners, and keeps its checkpoints."""
    job = client.create_job(spec)
    seen = until(client, job.id, lambda event: isinstance(event.event, CheckpointSaved))
    assert client.cancel(job.id).status in ("cancelling", "cancelled")
    rest = list(client.events(job.id, after=seen[-1].id))
    ended = client.get_job(job.id)
    assert ended.status == "cancelled"
    assert ended.finished_at is not None
    told_without_a_gap(seen + rest)
    steps = [checkpoint.step for checkpoint in client.checkpoints(job.id)]
    assert steps[0] == EVERY
    assert steps[-1] == ended.progress.step, "what was trained before the cancel is saved"


def until(client: Client, job_id: str, condition: Callable[[JobEvent], bool]) -> list[JobEvent]:
    """The job's events up to the first that fulfils the condition."""
    seen = []
    for event in client.events(job_id):
        seen.append(event)
        if condition(event):
            return seen
    raise AssertionError(f"the job ended early: {client.get_job(job_id)}\n{client.logs(job_id)}")


def is_step(event: JobEvent, step: int) -> bool:
    return isinstance(event.event, StepCompleted) and event.event.step >= step


def checkpoints_in(events: list[JobEvent]) -> list[int]:
    return [one.event.step for one in events if isinstance(one.event, CheckpointSaved)]


def told_without_a_gap(events: list[JobEvent]) -> None:
    """The stream tells each event once, in order, over reconnections too."""
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


def files_come_from_where_they_are_stored(deployment: Deployment, checkpoint_id: str) -> bool:
    """A link of the S3 server where there is one, else the API's own bytes."""
    path = f"http://127.0.0.1:{deployment.port}/v1/checkpoints/{checkpoint_id}/files/{LORA}"
    answer = httpx.get(path, headers={"Range": "bytes=0-7"})
    if "S3_ENDPOINT_URL" not in deployment.settings:
        return answer.status_code == 206 and len(answer.content) == 8
    location = answer.headers["location"]
    linked = httpx.get(location, headers={"Range": "bytes=0-7"})
    return location.startswith(deployment.settings["S3_PUBLIC_ENDPOINT_URL"]) and linked.status_code == 206


def unpack_the_zip(deployment: Deployment, checkpoint_id: str, folder: Path) -> Path:
    """What the README's curl and `python3 -m zipfile -e` leave."""
    answer = httpx.get(f"http://127.0.0.1:{deployment.port}/v1/checkpoints/{checkpoint_id}/download")
    with zipfile.ZipFile(io.BytesIO(answer.raise_for_status().content)) as archive:
        archive.extractall(folder)
    return folder


def contents_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def draws_other_images_than_its_base(aligned: Path) -> bool:
    """Whether plain diffusers loads the downloaded folder, and the model draws something else with it than without."""
    import torch
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    def draw(pipeline: StableDiffusionPipeline) -> np.ndarray:
        generator = torch.Generator().manual_seed(0)
        drawn: Any = pipeline(PROMPTS[0], num_inference_steps=4, generator=generator, output_type="np")
        return drawn.images[0]

    pipeline = StableDiffusionPipeline.from_pretrained(ASSETS / "model", safety_checker=None, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    base = draw(pipeline)
    pipeline.load_lora_weights(str(aligned))
    return bool(np.isfinite(base).all()) and not np.allclose(base, draw(pipeline), atol=1e-3)
