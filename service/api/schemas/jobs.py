"""A job over HTTP: what creates one and what is shown of it."""

import re
from collections.abc import Collection
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from alignment_core.costs.memory import Memory
from alignment_core.costs.seconds import Duration
from alignment_core.costs.work import Disk
from alignment_core.errors import Category
from alignment_core.events import Phase, StartCheck, Throughput
from alignment_core.spec import JobSpec
from alignment_core.spec.sources import WITHOUT_NUL
from service.api.schemas.base import Entry, RequestBody, Resource, with_example
from service.api.schemas.retention_policy import RetentionPolicy
from service.api.schemas.usage import JOB_USAGE_EXAMPLE, JobUsage
from service.errors import FieldProblem
from service.store.records import EventRecord, ForkMode, ForkReference, JobRecord, ParentRecord, PauseKeeps
from service.store.records import JobSummary as SummaryRecord
from service.store.states import JobState
from service.store.usage import Usage

JOB_ID = "job_01kaf0h2v7x3m5q8r1s4t6w9yz"
DATASET_ID = "ds_01kaf0f6a2c4e6g8j0m2p4r6t8"

Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=WITHOUT_NUL)]
METADATA_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
MetadataKey = Annotated[str, StringConstraints(pattern=f"^{METADATA_KEY.pattern}$")]
MetadataValue = Annotated[str, StringConstraints(max_length=512, pattern=WITHOUT_NUL)]

SPEC_EXAMPLE: dict[str, Any] = {
    "model": {"type": "catalog", "name": "shapes"},
    "method": {"type": "diffusion_dpo", "dataset": {"type": "stored", "id": DATASET_ID}, "beta": 2000.0},
    "training": {"steps": 400, "batch_size": 32, "gradient_accumulation_steps": 2, "learning_rate": 0.0003},
    "evaluation": {"rewards": [{"type": "colorfulness"}], "max_prompts": 32},
    "seed": 7,
}
RESOLVED_SPEC_EXAMPLE = JobSpec.model_validate(SPEC_EXAMPLE).resolved().model_dump(mode="json")

CREATE_EXAMPLE: dict[str, Any] = {"spec": SPEC_EXAMPLE, "name": "more colour", "metadata": {"team": "design"}}

SUMMARY_EXAMPLE: dict[str, Any] = {
    "id": JOB_ID,
    "object": "job",
    "name": "more colour",
    "metadata": {"team": "design"},
    "status": "running",
    "is_terminal": False,
    "phase": "training",
    "attempt": 1,
    "resume_from": None,
    "parent": None,
    "check_only": False,
    "pause_keeps": None,
    "queue": None,
    "outcome": None,
    "progress": {"step": 120, "total": 400, "percent": 30.0, "eta_seconds": 56.0},
    "error": None,
    "method": "diffusion_dpo",
    "model": "shapes",
    "spec_sha256": JobSpec.model_validate(SPEC_EXAMPLE).sha256(),
    "latest_checkpoint_id": None,
    "result_checkpoint_id": None,
    "created_at": "2026-11-20T09:15:00Z",
    "queued_at": "2026-11-20T09:15:00Z",
    "updated_at": "2026-11-20T09:15:31Z",
    "started_at": "2026-11-20T09:15:02Z",
    "finished_at": None,
}


ESTIMATE_EXAMPLE: dict[str, Any] = {
    "examples_per_step": 64,
    "optimizer_steps": 400,
    "num_training_examples": 1900,
    "epochs": 13.47,
    "num_checkpoints": 1,
    "evaluation_images": 128,
    "num_trainable_parameters": 46592,
    "memory": {
        "peak_gib": 0.158,
        "phase": "training",
        "weights": 0.004,
        "gradients": 0.0,
        "optimizer": 0.001,
        "reference": 0.0,
        "activations": 0.153,
        "vae_decode": 0.008,
        "conditioning": 0.001,
        "judges": 0.0,
    },
    "duration": {
        "card": "AMD EPYC 9575F",
        "source": "jobs",
        "phases": {
            "loading": {"low": 3.0, "expected": 6.0, "high": 12.0},
            "training": {"low": 70.0, "expected": 84.0, "high": 110.0},
            "saving": {"low": 0.1, "expected": 0.1, "high": 0.2},
        },
        "total": {"low": 73.1, "expected": 90.1, "high": 122.0},
    },
    "calibration": {
        "shape": "diffusion_dpo, sd, lora, AMD EPYC 9575F, jobs",
        "num_jobs": 23,
        "low": 84.2,
        "high": 103.0,
    },
    "disk": {"checkpoint_bytes": 559104, "checkpoints_bytes": 559104, "cache_bytes": 10485760},
}
START_CHECKS_EXAMPLE: dict[str, Any] = {
    "checks": [
        {"check": "load", "seconds": 0.61, "detail": "the model, and 32 examples of the data"},
        {"check": "step", "seconds": 0.44, "detail": "one step of 32 examples"},
        {"check": "checkpoint", "seconds": 0.05, "detail": "0.5 MiB written and read, equal to the bit"},
        {"check": "picture", "seconds": 0.21, "detail": "64 x 64 pixels in 20 steps"},
        {"check": "reward", "seconds": 0.01, "detail": "colorfulness 0.6771"},
    ],
    "seconds": 1.32,
    "checkpoint_bytes": 559104,
    "peak_device_gib": None,
}
JOB_EXAMPLE: dict[str, Any] = {
    **SUMMARY_EXAMPLE,
    "spec": RESOLVED_SPEC_EXAMPLE,
    "start_checks": START_CHECKS_EXAMPLE,
    "estimate": ESTIMATE_EXAMPLE,
    "usage": JOB_USAGE_EXAMPLE,
}


MOST_FIELDS = 10_000  # of all objects together; what is not a field is told one by one, which takes time for each


def _num_fields(body: Any) -> int:
    """Keys of the objects in JSON, however deep; counting stops a little after there are too many."""
    count, waiting = 0, [body]
    while waiting and count <= MOST_FIELDS:
        value = waiting.pop()
        inner = value.values() if isinstance(value, dict) else value
        count += len(value) if isinstance(value, dict) else 0
        waiting += [one for one in inner if isinstance(one, dict | list)] if isinstance(value, dict | list) else []
    return count


class ResumeFrom(RequestBody):
    """Where a job begins, if not from the model."""

    checkpoint_id: str = Field(
        pattern=r"^ckpt_[0-9a-z]{26}$", description="Id of a checkpoint.", examples=["ckpt_01kaf0n5b8d1f4h7k0m3p6r9t2"]
    )


class JobRequest(RequestBody):
    """What to run, and how to find it again."""

    model_config = ConfigDict(json_schema_extra={"examples": [CREATE_EXAMPLE]})

    @model_validator(mode="before")
    @classmethod
    def _has_an_end(cls, body: Any) -> Any:
        if _num_fields(body) > MOST_FIELDS:
            message = f"the body has more than {MOST_FIELDS} fields, and no job has as many"
            raise PydanticCustomError("too_many_fields", "{message}", {"message": message})
        return body

    spec: JobSpec
    name: Text | None = Field(None, description="A name for people.")
    resume_from: ResumeFrom | None = Field(
        None,
        description="Begin from a checkpoint of another job of the project, in place of the model as it is. Batch size, learning "
        "rate, loss, steps, evaluation and the like may differ from that job's.",
    )
    metadata: dict[MetadataKey, MetadataValue] = Field(
        default_factory=dict, max_length=16, description="Up to 16 pairs to filter lists by: `?metadata[team]=design`."
    )
    retention: RetentionPolicy | None = Field(
        None,
        description="Which of its checkpoints stay, in place of the project's policy; `PUT /v1/jobs/{job_id}/retention` changes it.",
    )


class PauseRequest(RequestBody):
    """What a pause keeps."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"keep": "last_checkpoint"}]})

    keep: PauseKeeps = Field(
        "last_step",
        description="`last_step`: save, then leave. `last_checkpoint`: leave at once, and drop the steps since the last checkpoint.",
    )


class JobProgress(Resource):
    """How far training is."""

    step: int = Field(description="Optimiser steps done.")
    total: int | None = Field(description="Optimiser steps of the whole job.")
    percent: float | None = Field(description="Share of the steps, from 0 to 100.")
    eta_seconds: float | None = Field(description="Seconds to the last step at the present pace, when it is known.")


class QueuePlace(Resource):
    """Where a queued job stands, and what it waits for. Jobs of all projects stand in one line, or in one for each class of jobs."""

    position: int = Field(description="Place among the queued jobs of its class; 1 is next.", examples=[3])
    ahead: int = Field(
        description="What it waits for: the queued jobs of its class before it, and those that workers hold just now. 0 means that "
        "it is taken as soon as a worker is there.",
        examples=[4],
    )


class JobError(Resource):
    """Why a job failed or had to pause, and what may be done about it."""

    code: str = Field(description="Stable name of the error.", examples=["non_finite_loss"])
    message: str
    category: Category = Field(description="`user`: change the spec or the data; `system`: ours; `capacity`: wait.")
    retryable: bool = Field(description="Whether the same may succeed when it is tried again.")
    hint: str | None


class Parent(Resource):
    """The checkpoint that a job was forked from. Both may be deleted once the fork has ended."""

    job_id: str
    checkpoint_id: str
    step: int = Field(description="Of the checkpoint.")
    mode: ForkMode = Field(description="`resume`: training went on there; `warm_start`: a new run on its weights.")
    reference: ForkReference | None = Field(
        description="What a warm start is held to and compared with: the bare base model, or the checkpoint. Null for `resume`, which has its "
        "parent's."
    )

    @classmethod
    def of(cls, parent: ParentRecord) -> "Parent":
        return cls.model_validate(parent.model_dump())


class Outcome(Resource):
    """What the latest report of a job says of the first reward of its spec; `GET /v1/jobs/{job_id}/report` has all of it."""

    reward: str
    gain: float = Field(
        description="Mean score of the policy less that of the model it started from, on held-out prompts."
    )
    low: float = Field(description="Lower end of the gain's interval.")
    high: float = Field(description="Upper end of the gain's interval.")
    confidence: float = Field(description="Of the interval, such as 0.95.")
    verdict: Literal["improved", "not_improved", "worse", "unknown"] = Field(
        description="`improved` where the interval lies above zero, `worse` where it lies below."
    )


class JobSummary(Entry):
    """One alignment run without its spec, which may hold thousands of prompts and is at `GET /v1/jobs/{job_id}`."""

    model_config = with_example(SUMMARY_EXAMPLE)

    object: Literal["job"] = "job"
    name: str | None
    metadata: dict[str, str]
    status: JobState
    is_terminal: bool = Field(description="Whether nothing more will happen by itself: succeeded, failed or cancelled.")
    phase: Phase | None = Field(description="What the training process does just now.")
    attempt: int = Field(
        description="How often a worker has taken this job: 0 while none has, above 1 after a pause or a lost worker."
    )
    resume_from: ResumeFrom | None = Field(description="The checkpoint of another job that this one begins from.")
    parent: Parent | None = Field(description="What the job was forked from; see `GET /v1/jobs/{job_id}/ancestry`.")
    check_only: bool = Field(description="Whether the job ends after what is tried before a run, with nothing trained.")
    pause_keeps: PauseKeeps | None = Field(
        description="Of a job that is pausing or paused by request: what it goes on from when it is resumed."
    )
    queue: QueuePlace | None = Field(description="Set while `status` is `queued`.")
    outcome: Outcome | None = Field(description="Null while there is no report.")
    progress: JobProgress
    error: JobError | None = Field(
        description="Set when `status` is `failed`, or `paused` because something that the job needs stayed away. If "
        "it is retryable, `POST .../resume` goes on from the last checkpoint."
    )
    method: str = Field(description="The `type` of the spec's method.")
    model: str = Field(description="The spec's model: its catalog name, repository or path, at most 500 characters.")
    spec_sha256: str = Field(description="Hash of the resolved spec; checkpoints and reports carry it too.")
    latest_checkpoint_id: str | None = Field(description="The newest checkpoint that is stored completely.")
    result_checkpoint_id: str | None = Field(
        description="The checkpoint that the report is about, once training has ended: the best by held-out reward, the last, "
        "or the one that a guard went back to."
    )
    created_at: datetime
    queued_at: datetime | None = Field(
        description="When the job joined the queue. It keeps its place when its worker is lost, and joins anew when it is "
        "resumed."
    )
    updated_at: datetime
    started_at: datetime | None = Field(description="When a worker first took the job.")
    finished_at: datetime | None

    @classmethod
    def of(cls, job: SummaryRecord) -> "JobSummary":
        """What is shown of a stored job: workers and leases are the operator's business."""
        return cls.model_validate(shown_of(job, cls.model_fields))


class Calibration(Resource):
    """How far estimates of such jobs were off."""

    shape: str = Field(description="Jobs that are compared: method, family, adapter, card, and what the rate rests on.")
    num_jobs: int = Field(description="That have succeeded in a single attempt, the latest 50 at most.")
    low: float | None = Field(
        description="Seconds; four of five such jobs take from here to `high`. Null below 9 jobs."
    )
    high: float | None


class Estimate(Resource):
    """What follows from the spec, the data and the files of the model."""

    examples_per_step: int = Field(
        description="Pairs, judged images, or prompts and steps of trajectories, in one optimiser step of all processes."
    )
    optimizer_steps: int
    num_training_examples: int | None = Field(
        description="Usable pairs or images less the validation split; null when not known."
    )
    epochs: float | None = Field(description="How often each of them is seen; null when their number is not known.")
    num_checkpoints: int = Field(description="Checkpoints that will be saved, the last step's included.")
    evaluation_images: int | None = Field(
        description="Images that evaluation samples, base and policy together; null when the prompts come from data."
    )
    num_trainable_parameters: int | None = Field(
        description="Of the adapter, or of the whole denoiser; null until the files of the model have been read."
    )
    duration: Duration | None = Field(
        description="Seconds from a worker's claim on, by phase and in all, between bounds; null until the files of the model have "
        "been read."
    )
    calibration: Calibration | None = Field(
        default=None, description="The total again, by what became of estimates of such jobs; null without a duration."
    )
    disk: Disk | None = Field(description="Bytes of checkpoints and caches; null until then.")
    memory: Memory | None = Field(
        description="GiB of each process, by component, within a tenth of what is measured; null until the files of the model "
        "have been read. Judges are not counted."
    )


class StartChecks(Resource):
    """What was tried before the run, and how long that took; all of it was undone."""

    checks: list[StartCheck]
    seconds: float = Field(description="Of all checks, with loading the model and encoding one batch.")
    checkpoint_bytes: int = Field(description="What a checkpoint of the run takes.")
    peak_device_gib: float | None = Field(description="The most that tensors took on the device; null on a CPU.")


class Job(JobSummary):
    """One alignment run."""

    model_config = with_example(JOB_EXAMPLE)

    spec: JobSpec = Field(description="The spec with every default written out.")
    throughput: Throughput | None = Field(
        default=None, description="How fast the last steps were and what they took; null before it was measured."
    )
    start_checks: StartChecks | None = Field(
        default=None,
        description="What was tried before the run; null before that, or where `training.start_checks` is false.",
    )
    estimate: Estimate | None = Field(
        description="What it was estimated to cost when it was created; null for jobs that are older than estimates."
    )
    usage: JobUsage | None = Field(
        default=None, description="What it took until now; null before a worker has taken it."
    )

    @classmethod
    def whole(
        cls,
        job: JobRecord,
        pace: EventRecord | None = None,
        checked: EventRecord | None = None,
        took: Usage | None = None,
    ) -> "Job":
        """The same with the spec, the pace that the job told last, what was tried before its run, and what it took."""
        is_comparable = job.state == "succeeded" and not job.check_only
        told = {
            "usage": None if took is None else JobUsage.of(took, job.estimate, is_comparable=is_comparable),
            "throughput": None if pace is None else pace.data["throughput"],
            "start_checks": None
            if checked is None
            else {name: checked.data[name] for name in StartChecks.model_fields},
        }
        return cls.model_validate({**shown_of(job, cls.model_fields), **told})


def shown_of(job: SummaryRecord, fields: Collection[str]) -> dict[str, Any]:
    """The fields of a stored row of the queue as they are shown; those that it has not are left out."""
    error = None if job.error is None else job.error.model_dump()
    shown = job.model_dump(include=set(fields) - {"error", "is_terminal", "status", "resume_from"})
    begins = job.resume_from_checkpoint_id
    composed = {
        "status": job.state,
        "is_terminal": job.is_terminal,
        "error": error,
        "resume_from": begins and ResumeFrom(checkpoint_id=begins),
    }
    return {**shown, **{name: value for name, value in composed.items() if name in fields}}


VALIDATION_EXAMPLE: dict[str, Any] = {
    "valid": True,
    "errors": [],
    "warnings": ["evaluation.rewards is empty: the report will show no proof that the model improved"],
    "resolved_spec": RESOLVED_SPEC_EXAMPLE,
    "estimate": ESTIMATE_EXAMPLE,
}


class Validation(Resource):
    """What would happen if this spec were posted."""

    model_config = with_example(VALIDATION_EXAMPLE)

    valid: bool = Field(description="Whether `POST /v1/jobs` would take it.")
    errors: list[FieldProblem]
    warnings: list[str] = Field(description="What is allowed but probably not meant.")
    resolved_spec: JobSpec | None = Field(description="Null when the spec could not be read.")
    estimate: Estimate | None
