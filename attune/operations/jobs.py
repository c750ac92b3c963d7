"""Jobs: queued, waited for, changed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from alignment_core.events import Action
from alignment_core.spec import JobSpec
from attune.connection import Connected
from attune.requests import job_body, job_path, key_headers
from attune.resources.jobs import Job, JobAction, JobStatus, JobSummary, Validation
from attune.waiting import until_ended


def create_job(
    client: Connected,
    spec: JobSpec | Mapping[str, Any],
    *,
    name: str | None = None,
    metadata: Mapping[str, str] | None = None,
    resume_from: str | None = None,
    retention: Mapping[str, Any] | None = None,
    pins: Mapping[str, Any] | None = None,
    check_only: bool = False,
    idempotency_key: str | None = None,
) -> Job:
    """Queue a job. Repeating a call with the same key never queues a second one.

    It begins from the checkpoint `resume_from` of another job, if one is given. `retention` is a policy of its
    own, `{"keep_last": 2, ...}`, in place of the project's; `pins` are checkpoints that are pinned as they are
    saved, `{"steps": [500], "result": True}`. With `check_only` it ends after what is tried before a run, which
    its `start_checks` tell.
    """
    body = job_body(spec, name, metadata, resume_from, retention, pins)
    params = {"check_only": "true"} if check_only else None
    return Job.model_validate(
        client.connection.request("POST", "/v1/jobs", json=body, params=params, headers=key_headers(idempotency_key))
    )


def validate(
    client: Connected,
    spec: JobSpec | Mapping[str, Any],
    *,
    name: str | None = None,
    metadata: Mapping[str, str] | None = None,
    resume_from: str | None = None,
    retention: Mapping[str, Any] | None = None,
    pins: Mapping[str, Any] | None = None,
) -> Validation:
    """What would be wrong or doubtful if this job were created; starts nothing."""
    body = job_body(spec, name, metadata, resume_from, retention, pins)
    return Validation.model_validate(client.connection.request("POST", "/v1/jobs/validate", json=body))


def get_job(client: Connected, job_id: str, *, wait_seconds: float = 0) -> Job:
    """The job as it is, or as it is when it has ended or `wait_seconds` are over, whichever comes first."""
    return Job.model_validate(client.connection.poll(job_path(job_id), wait_seconds))


def wait_for_job(client: Connected, job_id: str, timeout_seconds: float | None = None) -> Job:
    """The job once it has ended; `TimeoutError` when it has not within `timeout_seconds`."""
    return until_ended(
        lambda seconds: get_job(client, job_id, wait_seconds=seconds), f"job {job_id} is", timeout_seconds
    )


def jobs(
    client: Connected,
    *,
    status: Sequence[JobStatus] = (),
    method: str | None = None,
    model: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Iterator[JobSummary]:
    """Jobs, newest first and without their specs, page by page as they are needed."""
    filters: list[tuple[str, str]] = [("status", one) for one in status]
    filters += [(key, value) for key, value in (("method", method), ("model", model)) if value is not None]
    filters += [(f"metadata[{key}]", value) for key, value in (metadata or {}).items()]
    return (JobSummary.model_validate(entry) for entry in client.connection.pages("/v1/jobs", filters))


def cancel(client: Connected, job_id: str) -> JobSummary:
    return _change(client, job_id, "cancel")


def pause(client: Connected, job_id: str, *, keep: Literal["last_step", "last_checkpoint"] = "last_step") -> JobSummary:
    """Leave the machine to others: once the last step is saved, or at once and without the steps since the last checkpoint."""
    answer = client.connection.request("POST", f"{job_path(job_id)}/pause", json={"keep": keep})
    return JobSummary.model_validate(answer)


def ask(client: Connected, job_id: str, action: Action, *, idempotency_key: str | None = None) -> JobAction:
    """Have a job save a checkpoint, draw a picture or probe the policy after its next step."""
    body, headers = {"action": action}, key_headers(idempotency_key)
    answer = client.connection.request("POST", f"{job_path(job_id)}/actions", json=body, headers=headers)
    return JobAction.model_validate(answer)


def actions(client: Connected, job_id: str) -> list[JobAction]:
    """What was asked of a job, the earliest first."""
    return [JobAction.model_validate(one) for one in client.connection.pages(f"{job_path(job_id)}/actions", [])]


def resume(client: Connected, job_id: str) -> JobSummary:
    return _change(client, job_id, "resume")


def delete_job(client: Connected, job_id: str) -> None:
    """Remove a job that has ended, with all that it left."""
    client.connection.request("DELETE", job_path(job_id))


def _change(client: Connected, job_id: str, verb: Literal["cancel", "resume"]) -> JobSummary:
    return JobSummary.model_validate(client.connection.request("POST", f"{job_path(job_id)}/{verb}"))
