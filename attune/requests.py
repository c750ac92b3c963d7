"""What the client sends: paths, bodies of jobs, files."""

import json
import os
import uuid
from collections.abc import Mapping
from typing import Any

import httpx

from alignment_core.spec import JobSpec
from alignment_core.spec.sources import OnBadRow
from attune.connection import Connection, segment

FilePath = str | os.PathLike[str]
UPLOAD_TIMEOUT = httpx.Timeout(30.0, read=600.0, write=600.0)


def job_path(job_id: str) -> str:
    return f"/v1/jobs/{segment(job_id)}"


def checkpoint_path(checkpoint_id: str) -> str:
    return f"/v1/checkpoints/{segment(checkpoint_id)}"


def prompt_set_path(prompt_set_id: str) -> str:
    return f"/v1/prompt_sets/{segment(prompt_set_id)}"


def exports_path(checkpoint_id: str) -> str:
    return f"{checkpoint_path(checkpoint_id)}/exports"


def pushes_path(checkpoint_id: str) -> str:
    return f"{checkpoint_path(checkpoint_id)}/pushes"


def logs_of(connection: Connection, path: str) -> str:
    """The end of what the processes of a job, an evaluation or candidates printed, attempt after attempt."""
    return "\n".join(entry["text"] for entry in connection.request("GET", f"{path}/logs")["data"])


def job_body(
    spec: JobSpec | Mapping[str, Any],
    name: str | None,
    metadata: Mapping[str, str] | None,
    resume_from: str | None,
    retention: Mapping[str, Any] | None = None,
    pins: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    written = spec.model_dump(mode="json") if isinstance(spec, JobSpec) else dict(spec)
    begin = {"checkpoint_id": resume_from} if resume_from else None
    return {
        "spec": written,
        **given({"name": name, "metadata": dict(metadata) if metadata else None, "resume_from": begin}),
        **given(
            {"retention": None if retention is None else dict(retention), "pins": None if pins is None else dict(pins)}
        ),
    }


def dataset_fields(name: str | None, columns: Mapping[str, str] | None, on_bad_row: OnBadRow) -> dict[str, Any]:
    """What is said of a data set beside its file."""
    return given(
        {
            "name": name or None,
            "columns": dict(columns) if columns else None,
            "on_bad_row": None if on_bad_row == "fail" else on_bad_row,
        }
    )


def as_form(said: Mapping[str, Any]) -> dict[str, str]:
    """The same as fields of a form, in which what is no text is JSON."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in said.items()}


def key_headers(idempotency_key: str | None) -> dict[str, str]:
    """The header under which a request that is repeated makes one thing."""
    return {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}


def send_file(
    connection: Connection, path: str, file: tuple[str, Any], fields: dict[str, str], idempotency_key: str | None
) -> Any:
    """Upload a file, given as its name and its content, with what is said of it; the answer's JSON."""
    return connection.request(
        "POST",
        path,
        files={"file": (*file, "application/octet-stream")},
        data=fields,
        headers=key_headers(idempotency_key),
        timeout=UPLOAD_TIMEOUT,
    )


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that were given."""
    return {key: value for key, value in values.items() if value is not None}
