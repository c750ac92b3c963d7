"""Jobs that begin from a checkpoint, and who came from whom."""

from collections.abc import Mapping
from typing import Any, Literal

from alignment_core.spec import JobSpec
from attune.connection import Connected
from attune.requests import checkpoint_path, given, job_path, key_headers
from attune.resources.jobs import Ancestry, Job


def fork_resume(
    client: Connected,
    checkpoint_id: str,
    steps: int,
    *,
    name: str | None = None,
    metadata: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
) -> Job:
    """Queue a job that goes on from the checkpoint with the same spec, up to `steps` in all."""
    return _fork(client, checkpoint_id, {"mode": "resume", "steps": steps}, name, metadata, idempotency_key)


def fork_warm_start(
    client: Connected,
    checkpoint_id: str,
    reference: Literal["base", "checkpoint"],
    *,
    spec: JobSpec | Mapping[str, Any] | None = None,
    name: str | None = None,
    metadata: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
) -> Job:
    """Queue a new run on the checkpoint's weights, held to the bare base model or to the checkpoint; with the spec of its job, or this one."""
    written = spec.model_dump(mode="json") if isinstance(spec, JobSpec) else spec
    body = given({"mode": "warm_start", "reference": reference, "spec": written})
    return _fork(client, checkpoint_id, body, name, metadata, idempotency_key)


def _fork(
    client: Connected,
    checkpoint_id: str,
    fork: Mapping[str, Any],
    name: str | None,
    metadata: Mapping[str, str] | None,
    key: str | None,
) -> Job:
    body = {**fork, **given({"name": name, "metadata": dict(metadata) if metadata else None})}
    path = f"{checkpoint_path(checkpoint_id)}/fork"
    return Job.model_validate(client.connection.request("POST", path, json=body, headers=key_headers(key)))


def ancestry(client: Connected, job_id: str) -> Ancestry:
    """Where a job comes from, and what was forked from it."""
    return Ancestry.model_validate(client.connection.request("GET", f"{job_path(job_id)}/ancestry"))
