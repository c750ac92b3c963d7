"""A running API and what a worker writes behind it, through the store's own functions."""

import hashlib
import io
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
from httpx2 import Response
from PIL import Image
from starlette.testclient import TestClient

from alignment_core.events import (
    CheckpointSaved,
    EvaluationCompleted,
    Event,
    PhaseChanged,
    RunCompleted,
    RunStarted,
    SampleGrid,
    SamplesDrawn,
    StepCompleted,
    ValidationCompleted,
)
from alignment_core.reports import DatasetReport, LoraReport
from alignment_core.spec import JobSpec
from service.api.context import Parts
from service.api.schemas.datasets import DATASET_REPORT_EXAMPLE
from service.api.schemas.runs import REPORT_EXAMPLE
from service.store import datasets, events, jobs, keys, leases, outputs, projects
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.base import StoredFile
from service.store.records.projects import Scope

CATALOG = Path(__file__).parents[3] / "demo" / "assets" / "catalog.json"


def _picture() -> bytes:
    """A PNG that a browser shows."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 40, 40)).save(file, "png")
    return file.getvalue()


HEADER = json.dumps({"lora_unet_conv_in.alpha": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}).encode()
SAFETENSORS = struct.pack("<Q", len(HEADER)) + HEADER + bytes(4)
LORA_REPORT = LoraReport(format="kohya", num_layers=128, ranks=[8], alphas=[8.0], changes_text_encoder=False)
PARQUET = b"PAR1" + bytes(range(256)) * 40 + b"PAR1"
CHECKPOINT_FILES = {
    "pytorch_lora_weights.safetensors": bytes(range(251)) * 33,
    "training_state/optimizer.safetensors": b"moments" * 500,
    "manifest.json": b'{"step": 4}',
}
PAGE = b"<!doctype html><title>proof</title>"
PNG = _picture()


def spec_for(dataset_id: str, **training: object) -> dict[str, Any]:
    """A spec on the demo model, as a client would write it."""
    return {
        "model": {"type": "catalog", "name": "shapes"},
        "method": {"type": "diffusion_dpo", "dataset": {"type": "stored", "id": dataset_id}},
        "training": {"steps": 4, "batch_size": 8, "gradient_accumulation_steps": 8, **training},
        "evaluation": {"rewards": [{"type": "colorfulness"}]},
    }


@dataclass(frozen=True)
class Api:
    """A client of the service, and the parts behind it."""

    client: TestClient

    @property
    def parts(self) -> Parts:
        return self.client.app.state.parts  # pyright: ignore[reportAttributeAccessIssue, reportFunctionMemberAccess]

    def ready_dataset(self, project_id: str = DEFAULT_PROJECT_ID, **report: object) -> str:
        """Id of a data set that a worker has checked and found usable."""
        store = self.parts.store
        dataset = datasets.create(store, project_id=project_id, filename="pairs.parquet")
        key = keys.dataset_key(project_id, dataset.id, ".parquet")
        self.parts.objects.put_bytes(key, PARQUET)
        datasets.uploaded(store, dataset.id, size_bytes=len(PARQUET), sha256=_sha256(PARQUET), object_key=key)
        claim = datasets.claim(store, dataset.id, "worker", 60)
        assert claim is not None
        found = DatasetReport.model_validate({**DATASET_REPORT_EXAMPLE, **report})
        datasets.set_report(store, dataset.id, claim.attempt, found)
        return dataset.id

    def ready_weights(self, project_id: str = DEFAULT_PROJECT_ID, **report: object) -> str:
        """Id of a LoRA that a worker has looked into."""
        store = self.parts.store
        weights = datasets.create(store, project_id=project_id, filename="style.safetensors", kind="lora")
        key = keys.dataset_key(project_id, weights.id, ".safetensors")
        self.parts.objects.put_bytes(key, SAFETENSORS)
        datasets.uploaded(store, weights.id, size_bytes=len(SAFETENSORS), sha256=_sha256(SAFETENSORS), object_key=key)
        claim = datasets.claim(store, weights.id, "worker", 60)
        assert claim is not None
        datasets.set_report(store, weights.id, claim.attempt, LORA_REPORT.model_copy(update=report))
        return weights.id

    def post_job(self, headers: Mapping[str, str] | None = None, **body: object) -> Response:
        body = {"spec": spec_for(self.ready_dataset()), **body}
        return self.client.post("/v1/jobs", json=body, headers=headers)

    def new_job(self, **body: object) -> str:
        """Id of a queued job."""
        answer = self.post_job(**body)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def claim(self, job_id: str) -> int:
        """Take the job as a worker does; the attempt."""
        claim = leases.claim(self.parts.store, job_id, "worker", 60)
        assert claim is not None
        return claim.attempt

    def say(self, job_id: str, attempt: int, *said: Event) -> None:
        """Record events as the worker does."""
        for event in said:
            events.record_event(self.parts.store, job_id, attempt, event)

    def run(self, job_id: str, steps: int = 4) -> None:
        """The whole life of a job, with everything that it leaves."""
        attempt = self.claim(job_id)
        self.say(job_id, attempt, run_started(self.spec_of(job_id), steps), PhaseChanged(phase="training"))
        for step in range(1, steps + 1):
            self.say(job_id, attempt, step_completed(step, steps))
        self.say(job_id, attempt, ValidationCompleted(step=steps, metrics={"loss": 0.5}))
        self.save_checkpoint(job_id, attempt, steps)
        self.draw_sample(job_id, attempt, steps)
        self.evaluate(job_id, attempt, steps)
        self.say(job_id, attempt, RunCompleted(step=steps))
        outputs.put_log(self.parts.store, job_id, attempt, "loading\ndone\n")
        leases.finish(self.parts.store, job_id, attempt, "succeeded")

    def save_checkpoint(
        self,
        job_id: str,
        attempt: int,
        step: int,
        files: Mapping[str, bytes] = CHECKPOINT_FILES,
        kind: Literal["lora", "full"] = "lora",
        result_step: int | None = None,
    ) -> None:
        prefix = keys.checkpoint_prefix(DEFAULT_PROJECT_ID, job_id, step, attempt)
        stored = [self.keep(path, prefix + path, content) for path, content in files.items()]
        size = sum(file.size_bytes for file in stored)
        event = CheckpointSaved(
            step=step, path=f"step-{step}", kind=kind, is_final=True, size_bytes=size, result_step=result_step
        )
        events.record_event(self.parts.store, job_id, attempt, event, stored)

    def evaluate(self, job_id: str, attempt: int, step: int, page: bytes | None = PAGE) -> None:
        event = EvaluationCompleted(step=step, path="report.json", report=REPORT_EXAMPLE)
        stored = []
        if page is not None:
            key = keys.report_page_key(DEFAULT_PROJECT_ID, job_id, step, attempt)
            stored = [self.keep("report.html", key, page)]
        events.record_event(self.parts.store, job_id, attempt, event, stored)

    def draw_sample(
        self,
        job_id: str,
        attempt: int,
        step: int,
        prompts: Sequence[str] = ("a red circle",),
        picture: bytes = PNG,
        grid: SampleGrid | None = None,
    ) -> None:
        file = self.keep("grid.png", keys.sample_key(DEFAULT_PROJECT_ID, job_id, step, attempt), picture)
        event = SamplesDrawn(step=step, path="grid.png", prompts=list(prompts), grid=grid)
        events.record_event(self.parts.store, job_id, attempt, event, [file])

    def spec_of(self, job_id: str) -> JobSpec:
        job = jobs.get(self.parts.store, DEFAULT_PROJECT_ID, job_id)
        assert job is not None
        return JobSpec.model_validate(job.spec)

    def download(self, url: str) -> bytes:
        """The bytes, from here or from where the service redirects to."""
        answer = self.client.get(url, follow_redirects=False)
        if answer.status_code == 307:
            return httpx.get(answer.headers["location"]).raise_for_status().content
        assert answer.status_code == 200
        return answer.content

    def checkpoint_id(self, job_id: str) -> str:
        (checkpoint,) = self.client.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"]
        return checkpoint["id"]

    def keep(self, path: str, key: str, content: bytes) -> StoredFile:
        """A file in the object store."""
        self.parts.objects.put_bytes(key, content)
        return StoredFile(path=path, size_bytes=len(content), sha256=_sha256(content), object_key=key)


def bearer(api: Api, scope: Scope = "admin", project_id: str = DEFAULT_PROJECT_ID) -> dict[str, str]:
    """The header of a new key."""
    key, _ = projects.create_key(api.parts.store, project_id, scope, scope=scope)
    return {"Authorization": f"Bearer {key}"}


def sign_in(api: Api, scope: Scope = "submit", headers: dict[str, str] | None = None) -> dict[str, Any]:
    """Open a session, whose cookie the client keeps from then on."""
    answer = api.client.post("/v1/sessions", headers=headers or bearer(api, scope))
    assert answer.status_code == 201, answer.text
    return answer.json()


def step_completed(step: int, total: int = 4) -> StepCompleted:
    metrics = {"loss": round(0.7 - step / 100, 4), "margin": float(step)}
    return StepCompleted(step=step, total_steps=total, metrics=metrics, step_seconds=0.1, eta_seconds=1.0)


def run_started(spec: JobSpec, steps: int) -> RunStarted:
    resolved = spec.resolved()
    values = {
        "spec": resolved.model_dump(mode="json"),
        "spec_sha256": resolved.sha256(),
        "total_steps": steps,
        "learning_rate": resolved.training.learning_rate,
        "examples_per_step": 64,
        "device": "cpu",
        "precision": "fp32",
        "versions": {"attune": "0.1.0"},
    }
    return RunStarted.model_validate({name: values[name] for name in values if name in RunStarted.model_fields})


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def assert_problem(answer: Response, status: int, code: str) -> dict[str, Any]:
    """The answer is a problem document of this status and code; returns it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail", "code", "request_id", "errors"}
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["request_id"] == answer.headers["x-request-id"] != ""
    return problem
