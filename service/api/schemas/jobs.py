"""A job over HTTP: what creates one and what is shown of it."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from alignment_core.events import Phase, StartCheck, Throughput
from alignment_core.spec import JobSpec
from service.api.schemas.base import Entry, RequestBody, Resource, with_example
from service.api.schemas.estimates import Estimate
from service.api.schemas.job_examples import CREATE_EXAMPLE, JOB_EXAMPLE, SUMMARY_EXAMPLE, VALIDATION_EXAMPLE
from service.api.schemas.retention_policy import JobPins, RetentionPolicy
from service.api.schemas.rows import JobError, QueuePlace, shown_of
from service.api.schemas.texts import Metadata, NameForPeople
from service.api.schemas.usage import JobUsage
from service.errors import FieldProblem
from service.store.records.jobs import ForkMode, ForkReference, JobRecord, ParentRecord, PauseKeeps
from service.store.records.jobs import JobSummary as SummaryRecord
from service.store.records.runs import EventRecord
from service.store.states import JobState
from service.store.usage import Usage

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
    name: NameForPeople = None
    resume_from: ResumeFrom | None = Field(
        None,
        description="Begin from a checkpoint of another job of the project, in place of the model as it is. Batch size, learning "
        "rate, loss, steps, evaluation and the like may differ from that job's.",
    )
    metadata: Metadata = Field(default_factory=dict)
    retention: RetentionPolicy | None = Field(
        None,
        description="Which of its checkpoints stay, in place of the project's policy; `PUT /v1/jobs/{job_id}/retention` changes it.",
    )
    pins: JobPins | None = Field(
        None, description="Which of its checkpoints are pinned as they are saved; `POST .../unpin` lets one go again."
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
        return cls.model_validate(_shown(job, cls.model_fields))


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
        return cls.model_validate({**_shown(job, cls.model_fields), **told})


def _shown(job: SummaryRecord, fields: Collection[str]) -> dict[str, Any]:
    begins = job.resume_from_checkpoint_id
    return {**shown_of(job, fields), "resume_from": begins and ResumeFrom(checkpoint_id=begins)}


class Validation(Resource):
    """What would happen if this spec were posted."""

    model_config = with_example(VALIDATION_EXAMPLE)

    valid: bool = Field(description="Whether `POST /v1/jobs` would take it.")
    errors: list[FieldProblem]
    warnings: list[str] = Field(description="What is allowed but probably not meant.")
    resolved_spec: JobSpec | None = Field(description="Null when the spec could not be read.")
    estimate: Estimate | None
