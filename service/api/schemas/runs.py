"""What a run leaves behind over HTTP: events, metrics, samples, logs and the manifest."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from alignment_core.events import FileRecord, SampleGrid
from alignment_core.reports import EvaluationReport
from alignment_core.spec import JobSpec
from service.api.schemas.base import Entry, Resource, with_example
from service.api.schemas.checkpoints import CHECKPOINT_ID, FILES_EXAMPLE
from service.api.schemas.job_examples import DATASET_ID, JOB_ID, RESOLVED_SPEC_EXAMPLE
from service.store.records.runs import EventRecord, LogRecord, SampleRecord
from service.store.states import JobState

EVENT_EXAMPLE: dict[str, Any] = {
    "id": "evt_01kaf0k9c1e3g5j7m9p1r3t5v7",
    "object": "event",
    "job_id": JOB_ID,
    "sequence": 124,
    "attempt": 1,
    "type": "step_completed",
    "time": "2026-11-20T09:15:31.204511Z",
    "data": {
        "type": "step_completed",
        "time": "2026-11-20T09:15:31.204511Z",
        "step": 120,
        "total_steps": 400,
        "metrics": {"loss": 0.6412, "implicit_accuracy": 0.73, "margin": 0.118},
        "step_seconds": 0.2,
        "eta_seconds": 56.0,
    },
}


class JobEvent(Entry):
    """Something that happened in a run, in the order in which it was recorded."""

    model_config = with_example(EVENT_EXAMPLE)

    object: Literal["event"] = "event"
    job_id: str
    sequence: int = Field(description="Counts from 1 within the job; the `id:` of the event stream.")
    attempt: int
    type: str = Field(description="The same as `data.type`.")
    time: datetime
    data: dict[str, Any] = Field(description="The event itself, an `Event`; figures that are no numbers are null.")

    @classmethod
    def of(cls, event: EventRecord) -> "JobEvent":
        return cls.model_validate({**event.model_dump(exclude={"seq"}), "sequence": event.seq})


DONE_EXAMPLE: dict[str, Any] = {"job_id": JOB_ID, "status": "succeeded", "last_sequence": 431}


class StreamEnd(Resource):
    """The data of the stream's last event, `done`: nothing more will come."""

    model_config = with_example(DONE_EXAMPLE)

    job_id: str
    status: JobState
    last_sequence: int


METRICS_EXAMPLE: dict[str, Any] = {
    "object": "metrics",
    "job_id": JOB_ID,
    "keys": ["loss", "margin"],
    "data": [
        {"step": 1, "metrics": {"loss": 0.6931, "margin": 0.0}},
        {"step": 400, "metrics": {"loss": 0.4107, "margin": 0.892}},
    ],
}


class MetricPoint(Resource):
    """The figures of one optimiser step; a key that the step has no figure for is left out, NaN is null."""

    step: int
    metrics: dict[str, float | None]


class Metrics(Resource):
    """Figures by step. Those of the validation split are called `validation/NAME`, those of probes `held_out/NAME`."""

    model_config = with_example(METRICS_EXAMPLE)

    object: Literal["metrics"] = "metrics"
    job_id: str
    keys: list[str] = Field(description="Every name that occurs in `data`, sorted.")
    data: list[MetricPoint]


SAMPLE_EXAMPLE: dict[str, Any] = {
    "id": "smp_01kaf0nd3f5h7k9m1p3r5t7v9x",
    "object": "sample",
    "job_id": JOB_ID,
    "step": 400,
    "attempt": 1,
    "prompts": ["a big red circle on the left", "a small blue star on the right"],
    "grid": {
        "tile_width": 160,
        "tile_height": 160,
        "image_width": 32,
        "image_height": 32,
        "tiles": [
            {"prompt": 0, "seed": 2899170623, "base": {"x": 116, "y": 124}, "policy": {"x": 116, "y": 288}},
            {"prompt": 1, "seed": 1307263581, "base": {"x": 304, "y": 124}, "policy": {"x": 304, "y": 288}},
        ],
    },
    "checkpoint_id": "ckpt_01kaf0n5b8d1f4h7k0m3p6r9t2",
    "size_bytes": 48211,
    "sha256": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "image_url": f"/v1/jobs/{JOB_ID}/samples/smp_01kaf0nd3f5h7k9m1p3r5t7v9x.png",
    "created_at": "2026-11-20T09:16:41Z",
}


class Sample(Entry):
    """A picture of base and policy side by side: same prompts, same seeds."""

    model_config = with_example(SAMPLE_EXAMPLE)

    object: Literal["sample"] = "sample"
    job_id: str
    step: int
    attempt: int
    prompts: list[str]
    grid: SampleGrid | None = Field(
        description="Where each image stands in the picture, to lay two of them over each other; null of runs of older versions."
    )
    checkpoint_id: str | None = Field(
        description="The checkpoint of the same step, whose weights draw these images again; null where none was saved, or none is kept."
    )
    size_bytes: int
    sha256: str
    image_url: str = Field(description="Where the PNG is; without a host it is on this server.")
    created_at: datetime

    @classmethod
    def of(cls, sample: SampleRecord, base_url: str) -> "Sample":
        shown = sample.model_dump(include=cls.model_fields.keys() - {"image_url"})
        return cls.model_validate({**shown, "image_url": f"{base_url}/v1/jobs/{sample.job_id}/samples/{sample.id}.png"})

    @classmethod
    def of_evaluation(cls, sample: SampleRecord, base_url: str) -> "Sample":
        """The same of an evaluation: a contender over the anchor."""
        place = f"{base_url}/v1/evaluations/{sample.job_id}/pictures/{sample.id}.png"
        return cls.of(sample, base_url).model_copy(update={"image_url": place})


LOGS_EXAMPLE: dict[str, Any] = {
    "object": "logs",
    "job_id": JOB_ID,
    "data": [{"attempt": 1, "text": "loading shapes\n", "updated_at": "2026-11-20T09:15:10Z"}],
}


class AttemptLog(Resource):
    """The end of what the training process of one attempt printed."""

    attempt: int
    text: str
    updated_at: datetime

    @classmethod
    def of(cls, log: LogRecord) -> "AttemptLog":
        return cls(attempt=log.attempt, text=log.text, updated_at=log.updated_at)


class Logs(Resource):
    """What a job's processes printed, one entry an attempt; for events in order see `/events`."""

    model_config = with_example(LOGS_EXAMPLE)

    object: Literal["logs"] = "logs"
    job_id: str
    data: list[AttemptLog]


class ManifestCheckpoint(Resource):
    """A checkpoint as the manifest names it."""

    id: str
    step: int
    kind: Literal["lora", "full"]
    is_final: bool
    is_best: bool
    files: list[FileRecord]


MANIFEST_EXAMPLE: dict[str, Any] = {
    "object": "manifest",
    "job_id": JOB_ID,
    "status": "succeeded",
    "attempt": 1,
    "spec": RESOLVED_SPEC_EXAMPLE,
    "spec_sha256": "0f343b0931126a20f133d67c2b018a3b5e5b0c2e8b1f1a2d3c4b5a6978877665",
    "datasets": [{"id": DATASET_ID, "sha256": "ab" * 32, "num_usable_rows": 2000}],
    "versions": {"attune": "0.1.0", "python": "3.11.9", "torch": "2.13.0"},
    "checkpoints": [
        {
            "id": CHECKPOINT_ID,
            "step": 400,
            "kind": "lora",
            "is_final": True,
            "is_best": False,
            "files": FILES_EXAMPLE["data"],
        }
    ],
    "report_sha256": None,
}


class ManifestDataset(Resource):
    """The data that was trained on."""

    id: str
    sha256: str | None = Field(description="Hash of the uploaded file.")
    num_usable_rows: int | None


class Manifest(Resource):
    """Everything that decided a job's result and everything it left, by hash: what one needs to do it again."""

    model_config = with_example(MANIFEST_EXAMPLE)

    object: Literal["manifest"] = "manifest"
    job_id: str
    status: JobState
    attempt: int
    spec: JobSpec
    spec_sha256: str
    datasets: list[ManifestDataset] = Field(description="Those that were uploaded; local paths are in the spec.")
    versions: dict[str, str] = Field(description="Of the last attempt; empty while no process has started.")
    checkpoints: list[ManifestCheckpoint]
    report_sha256: str | None = Field(description="Hash of the evaluation report's canonical JSON; null without one.")


REPORT_EXAMPLE: dict[str, Any] = EvaluationReport.model_validate(
    {
        "step": 400,
        "base": {"label": "initial model", "step": None, "spec_sha256": None},
        "policy": {"label": "step 400", "step": 400, "spec_sha256": MANIFEST_EXAMPLE["spec_sha256"]},
        "num_prompts": 1,
        "seeds_per_prompt": 2,
        "num_inference_steps": 20,
        "guidance_scale": 5.0,
        "primary_reward": "colorfulness",
        "verdict": "improved",
        "rewards": [
            {
                "name": "colorfulness",
                "base_mean": 0.41,
                "policy_mean": 0.58,
                "gain": 0.17,
                "gain_interval": {"low": 0.15, "high": 0.19, "confidence": 0.95},
                "win_rate": 1.0,
                "bootstrap_interval": {"low": 0.96, "high": 1.0, "confidence": 0.95},
                "prompts_won": 1.0,
                "wilson_interval": {"low": 0.21, "high": 1.0, "confidence": 0.95},
                "num_ties": 0,
            }
        ],
        "prompt_following": None,
        "diversity": {"base": 0.21, "policy": 0.2},
        "spec_sha256": MANIFEST_EXAMPLE["spec_sha256"],
        "base_model_sha256": "cd" * 32,
        "versions": MANIFEST_EXAMPLE["versions"],
        "elapsed_seconds": 14.2,
        "images": [
            {
                "prompt": "a big red circle on the left",
                "seed": 0,
                "base": {"colorfulness": 0.4},
                "policy": {"colorfulness": 0.57},
            },
            {
                "prompt": "a big red circle on the left",
                "seed": 1,
                "base": {"colorfulness": 0.42},
                "policy": {"colorfulness": 0.59},
            },
        ],
    }
).model_dump(mode="json")
