"""Client: the HTTP API as methods. Synchronous, one connection pool, safe to share between threads.

with Client("http://127.0.0.1:8000") as client:
    dataset = client.wait_for_dataset(client.upload_dataset(Path("pairs.parquet")).id)
    job = client.create_job(spec)
    for event in client.events(job.id): ...
    client.download_checkpoint(client.result_checkpoint(job.id), Path("aligned"))
"""

import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote

import httpx

from alignment_core.reports import DatasetReport, EvaluationReport
from alignment_core.spec import JobSpec
from alignment_core.spec.exports import ONE_FILE, ExportFormat
from attune.connection import Connection, checked_url, segment
from attune.downloads import download_file, inside
from attune.errors import AttuneError
from attune.folder_zip import FolderZip
from attune.resources import (
    CatalogEntry,
    Checkpoint,
    CheckpointFile,
    Dataset,
    Export,
    Job,
    JobEvent,
    JobStatus,
    JobSummary,
    MetricPoint,
    Sample,
    Validation,
    Weights,
)

DEFAULT_URL = "http://127.0.0.1:8000"
LONG_POLL_SECONDS = 30.0
MOST_RECONNECTS = 10  # in a row, without an event in between
FIRST_SERVER_ERROR = 500  # a proxy answers so while the server behind it restarts
END_OF_CHECK = ("ready", "failed")
TRAINING_STATE = "training_state/"

WeightsFormat = Literal["safetensors", "kohya"]
WEIGHTS_FILES: dict[WeightsFormat, str] = {
    "safetensors": "pytorch_lora_weights.safetensors",
    "kohya": "pytorch_lora_weights_kohya.safetensors",
}


FilePath = str | os.PathLike[str]


class Client:
    """A connection to an Attune server. Every method raises `AttuneError` when the server says no or does not answer."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_seconds: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`base_url` and `api_key` come from `ATTUNE_URL` and `ATTUNE_API_KEY` when left out.

        `ValueError` for an address that is none.
        """
        key = api_key or os.environ.get("ATTUNE_API_KEY")
        self.base_url = checked_url(base_url or os.environ.get("ATTUNE_URL") or DEFAULT_URL)
        self._connection = Connection(self.base_url, key, timeout_seconds, transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    # --- data sets ---

    def upload_dataset(
        self,
        path: FilePath,
        *,
        name: str | None = None,
        columns: Mapping[str, str] | None = None,
        on_bad_row: Literal["fail", "drop"] = "fail",
        idempotency_key: str | None = None,
    ) -> Dataset:
        """Upload a parquet file, a zip, or a folder, which is zipped on its way; `wait_for_dataset` waits for its check.

        `columns` says which column is what where its name does not, such as `{"prompt": "caption", "chosen": "good"}`. With
        `on_bad_row="drop"` rows with an error are left out, counted and named in the report; otherwise one is enough to
        make the data set unusable.
        """
        path = Path(path)
        with _to_send(path) as (filename, file):
            answer = self._connection.request(
                "POST",
                "/v1/datasets",
                files={"file": (filename, file, "application/octet-stream")},
                data=_given(
                    {
                        "name": name or None,
                        "columns": json.dumps(dict(columns)) if columns else None,
                        "on_bad_row": None if on_bad_row == "fail" else on_bad_row,
                    }
                ),
                headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex},
                timeout=httpx.Timeout(30.0, read=600.0, write=600.0),
            )
        return Dataset.model_validate(answer)

    def datasets(self) -> Iterator[Dataset]:
        """Data sets, newest first, page by page as they are needed."""
        return (Dataset.model_validate(entry) for entry in self._connection.pages("/v1/datasets", []))

    def get_dataset(self, dataset_id: str, *, wait_seconds: float = 0) -> Dataset:
        """The data set as it is, or as it is when its check has ended or `wait_seconds` are over."""
        return Dataset.model_validate(self._poll(f"/v1/datasets/{segment(dataset_id)}", wait_seconds))

    def dataset_report(self, dataset_id: str) -> DatasetReport:
        """What preflight found in the data, with row numbers."""
        return DatasetReport.model_validate(
            self._connection.request("GET", f"/v1/datasets/{segment(dataset_id)}/report")
        )

    def wait_for_dataset(self, dataset_id: str, timeout_seconds: float = 600.0) -> Dataset:
        """The data set once it is ready; `AttuneError` with its error when it failed, `TimeoutError` when neither."""
        deadline = time.monotonic() + timeout_seconds
        while (dataset := self.get_dataset(dataset_id, wait_seconds=_until(deadline))).status not in END_OF_CHECK:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"dataset {dataset_id} is still {dataset.status} after {timeout_seconds:g} seconds")
        if dataset.error is not None:
            raise AttuneError({"code": dataset.error.code, "detail": dataset.error.message})
        return dataset

    def delete_dataset(self, dataset_id: str) -> None:
        """Remove a data set for good; refused while a job that has not ended needs it."""
        self._connection.request("DELETE", f"/v1/datasets/{segment(dataset_id)}")

    # --- weights ---

    def upload_weights(self, path: FilePath, *, name: str | None = None, idempotency_key: str | None = None) -> Weights:
        """Upload a LoRA as safetensors, for jobs to start from; `wait_for_weights` waits for its check."""
        path = Path(path)
        with path.open("rb") as file:
            answer = self._connection.request(
                "POST",
                "/v1/weights",
                files={"file": (path.name, file, "application/octet-stream")},
                data=_given({"name": name or None}),
                headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex},
                timeout=httpx.Timeout(30.0, read=600.0, write=600.0),
            )
        return Weights.model_validate(answer)

    def weights(self) -> Iterator[Weights]:
        """Uploaded weights, newest first, page by page as they are needed."""
        return (Weights.model_validate(entry) for entry in self._connection.pages("/v1/weights", []))

    def get_weights(self, weights_id: str, *, wait_seconds: float = 0) -> Weights:
        """The weights as they are, or as they are when their check has ended or `wait_seconds` are over."""
        return Weights.model_validate(self._poll(f"/v1/weights/{segment(weights_id)}", wait_seconds))

    def wait_for_weights(self, weights_id: str, timeout_seconds: float = 600.0) -> Weights:
        """The weights once they are ready; `AttuneError` with their error when they failed, `TimeoutError` when neither."""
        deadline = time.monotonic() + timeout_seconds
        while (weights := self.get_weights(weights_id, wait_seconds=_until(deadline))).status not in END_OF_CHECK:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"weights {weights_id} are still {weights.status} after {timeout_seconds:g} seconds")
        if weights.error is not None:
            raise AttuneError({"code": weights.error.code, "detail": weights.error.message})
        return weights

    def delete_weights(self, weights_id: str) -> None:
        """Remove uploaded weights for good; refused while a job that has not ended needs them."""
        self._connection.request("DELETE", f"/v1/weights/{segment(weights_id)}")

    # --- jobs ---

    def create_job(
        self,
        spec: JobSpec | Mapping[str, Any],
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        resume_from: str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Queue a job. Repeating a call with the same key never queues a second one.

        It begins from the checkpoint `resume_from` of another job, if one is given.
        """
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return Job.model_validate(
            self._connection.request(
                "POST", "/v1/jobs", json=_job_body(spec, name, metadata, resume_from), headers=headers
            )
        )

    def validate(
        self,
        spec: JobSpec | Mapping[str, Any],
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        resume_from: str | None = None,
    ) -> Validation:
        """What would be wrong or doubtful if this job were created; starts nothing."""
        body = _job_body(spec, name, metadata, resume_from)
        return Validation.model_validate(self._connection.request("POST", "/v1/jobs/validate", json=body))

    def get_job(self, job_id: str, *, wait_seconds: float = 0) -> Job:
        """The job as it is, or as it is when it has ended or `wait_seconds` are over, whichever comes first."""
        return Job.model_validate(self._poll(_job(job_id), wait_seconds))

    def wait_for_job(self, job_id: str, timeout_seconds: float | None = None) -> Job:
        """The job once it has ended; `TimeoutError` when it has not within `timeout_seconds`."""
        deadline = float("inf") if timeout_seconds is None else time.monotonic() + timeout_seconds
        while not (job := self.get_job(job_id, wait_seconds=_until(deadline))).is_terminal:
            if job.status == "paused":
                time.sleep(1.0)  # the server answers at once
            if time.monotonic() >= deadline:
                raise TimeoutError(f"job {job_id} is still {job.status} after {timeout_seconds} seconds")
        return job

    def jobs(
        self,
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
        return (JobSummary.model_validate(entry) for entry in self._connection.pages("/v1/jobs", filters))

    def cancel(self, job_id: str) -> JobSummary:
        return self._change(job_id, "cancel")

    def pause(self, job_id: str) -> JobSummary:
        return self._change(job_id, "pause")

    def resume(self, job_id: str) -> JobSummary:
        return self._change(job_id, "resume")

    def delete_job(self, job_id: str) -> None:
        """Remove a job that has ended, with all that it left."""
        self._connection.request("DELETE", _job(job_id))

    def _change(self, job_id: str, verb: Literal["cancel", "pause", "resume"]) -> JobSummary:
        return JobSummary.model_validate(self._connection.request("POST", f"{_job(job_id)}/{verb}"))

    # --- what a run says and leaves ---

    def events(self, job_id: str, *, after: str | None = None) -> Iterator[JobEvent]:
        """Every event after the id `after`, then live ones until the job has ended; reconnects by itself."""
        failures = 0
        while True:
            try:
                for message in self._connection.stream(f"{_job(job_id)}/events", after):
                    if message.event == "done":
                        return
                    after, failures = message.id or after, 0
                    yield JobEvent.model_validate_json(message.data)
            except httpx.TransportError as error:
                if failures >= MOST_RECONNECTS:
                    raise AttuneError.unreachable(self.base_url, error) from error
            except AttuneError as error:
                if failures >= MOST_RECONNECTS or (error.status or 0) < FIRST_SERVER_ERROR:
                    raise
            time.sleep(min(0.2 * 2**failures, 10.0))
            failures += 1

    def past_events(self, job_id: str) -> Iterator[JobEvent]:
        """Every event so far, page by page as they are needed."""
        return (JobEvent.model_validate(entry) for entry in self._connection.pages(f"{_job(job_id)}/events", []))

    def metrics(
        self, job_id: str, *, keys: Sequence[str] = (), from_step: int | None = None, max_points: int | None = None
    ) -> list[MetricPoint]:
        """Figures by step; all names when `keys` is empty."""
        params = {"keys": ",".join(keys) or None, "from_step": from_step, "max_points": max_points}
        answer = self._connection.request("GET", f"{_job(job_id)}/metrics", params=_given(params))
        return [MetricPoint.model_validate(point) for point in answer["data"]]

    def report(self, job_id: str) -> EvaluationReport:
        """The proof: base against policy on held-out prompts."""
        return EvaluationReport.model_validate(self._connection.request("GET", f"{_job(job_id)}/report"))

    def download_report_page(self, job_id: str, path: FilePath) -> Path:
        """Save the proof as `path`: one HTML page for people."""
        page = self._connection.request_bytes(f"{_job(job_id)}/report.html")
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(page)
        return path

    def logs(self, job_id: str) -> str:
        """The end of what the job's processes printed, attempt after attempt."""
        return "\n".join(entry["text"] for entry in self._connection.request("GET", f"{_job(job_id)}/logs")["data"])

    def samples(self, job_id: str) -> list[Sample]:
        """Pictures of base and policy, the earliest step first."""
        return [Sample.model_validate(entry) for entry in self._connection.pages(f"{_job(job_id)}/samples", [])]

    def download_sample(self, sample: Sample, path: FilePath) -> Path:
        """Save the picture as `path`."""
        path = Path(path)
        file = CheckpointFile(path=path.name, size_bytes=sample.size_bytes, sha256=sample.sha256)
        return download_file(self._connection.http, sample.image_url, file, path)

    def checkpoints(self, job_id: str) -> list[Checkpoint]:
        """The job's checkpoints, the earliest step first."""
        return [Checkpoint.model_validate(entry) for entry in self._connection.pages(f"{_job(job_id)}/checkpoints", [])]

    def result_checkpoint(self, job_id: str) -> str:
        """Id of the job's result; before training has ended the best checkpoint so far, or without probes the latest.

        `ValueError` while there is none.
        """
        job = self.get_job(job_id)
        if job.result_checkpoint_id is not None:
            return job.result_checkpoint_id
        found = next((one.id for one in self.checkpoints(job_id) if one.is_best), job.latest_checkpoint_id)
        if found is None:
            raise ValueError(f"{job_id} has no checkpoint yet")
        return found

    def checkpoint_files(self, checkpoint_id: str) -> list[CheckpointFile]:
        answer = self._connection.request("GET", f"/v1/checkpoints/{segment(checkpoint_id)}/files")
        return [CheckpointFile.model_validate(file) for file in answer["data"]]

    def download_checkpoint(self, checkpoint_id: str, folder: FilePath, *, with_training_state: bool = False) -> Path:
        """Download a checkpoint into `folder`, each file checked against its sha256.

        What an interrupted call has left there is not fetched again. Training state is only of use to Attune itself.
        """
        folder = Path(folder)
        for file in self.checkpoint_files(checkpoint_id):
            if with_training_state or not file.path.startswith(TRAINING_STATE):
                url = f"/v1/checkpoints/{segment(checkpoint_id)}/files/{quote(file.path)}"
                download_file(self._connection.http, url, file, folder / inside(file.path))
        return folder

    def download_weights(self, checkpoint_id: str, path: Path, *, format: WeightsFormat) -> Path:
        """Download a LoRA as the one file `path`: for diffusers, or for ComfyUI, A1111, InvokeAI and kohya's scripts.

        Raises `AttuneError` with the code `format_not_available` where the checkpoint has no such file.
        """
        name = WEIGHTS_FILES[format]
        file = next((file for file in self.checkpoint_files(checkpoint_id) if file.path == name), None)
        if file is None:
            raise AttuneError({"code": "format_not_available", "detail": f"checkpoint {checkpoint_id} has no {name}"})
        url = f"/v1/checkpoints/{segment(checkpoint_id)}/files/{quote(name)}"
        return download_file(self._connection.http, url, file, path)

    def has_weights(self, checkpoint_id: str, format: WeightsFormat) -> bool:
        """Whether training saved the LoRA as this one file, so that no worker is needed for it."""
        return any(file.path == WEIGHTS_FILES[format] for file in self.checkpoint_files(checkpoint_id))

    def export_checkpoint(self, checkpoint_id: str, format: ExportFormat) -> Export:
        """Ask for a checkpoint in another form; a worker makes it, once. One that failed is made anew."""
        answer = self._connection.request("POST", _exports(checkpoint_id), json={"format": format})
        return Export.model_validate(answer)

    def wait_for_export(self, checkpoint_id: str, format: ExportFormat, timeout_seconds: float = 3600.0) -> Export:
        """The export once it is ready; `AttuneError` with its error when it failed, `TimeoutError` when neither."""
        deadline, path = time.monotonic() + timeout_seconds, f"{_exports(checkpoint_id)}/{format}"
        while (export := Export.model_validate(self._poll(path, _until(deadline)))).status not in END_OF_CHECK:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"the {format} export is still {export.status} after {timeout_seconds:g} seconds")
        if export.error is not None:
            raise AttuneError({"code": export.error.code, "detail": export.error.message})
        return export

    def download_export(self, checkpoint_id: str, target: FilePath, *, format: ExportFormat) -> Path:
        """Have a checkpoint made in another form, wait for it, and save it, each file checked against its sha256.

        `target` is the file to write for `kohya` and `single_file`, and a folder for the others.
        """
        target = Path(target)
        self.export_checkpoint(checkpoint_id, format)
        for file in self.wait_for_export(checkpoint_id, format).files:
            url = f"{_exports(checkpoint_id)}/{format}/files/{quote(file.path)}"
            if format not in ONE_FILE:
                download_file(self._connection.http, url, file, target / inside(file.path))
            elif file.path == ONE_FILE[format]:
                download_file(self._connection.http, url, file, target)
        return target

    def delete_checkpoint(self, checkpoint_id: str, *, even_result: bool = False) -> None:
        """Remove a checkpoint of a job that has ended; the job's result only with `even_result`."""
        params = {"even_result": "true"} if even_result else None
        self._connection.request("DELETE", f"/v1/checkpoints/{segment(checkpoint_id)}", params=params)

    # --- the server ---

    def models(self) -> list[CatalogEntry]:
        """The models that jobs may name."""
        return self._catalog("models")

    def methods(self) -> list[CatalogEntry]:
        """The methods that jobs may ask for."""
        return self._catalog("methods")

    def rewards(self) -> list[CatalogEntry]:
        """The rewards that methods and evaluations may use."""
        return self._catalog("rewards")

    def _catalog(self, kind: Literal["models", "methods", "rewards"]) -> list[CatalogEntry]:
        answer = self._connection.request("GET", f"/v1/{kind}")
        return [CatalogEntry.model_validate(entry) for entry in answer["data"]]

    def is_ready(self) -> bool:
        """Whether the server and the parts it leans on answer."""
        return self._connection.answers("/readyz")

    def _poll(self, path: str, wait_seconds: float) -> Any:
        timeout = httpx.Timeout(30.0, read=30.0 + wait_seconds)
        return self._connection.request("GET", path, params={"wait": wait_seconds}, timeout=timeout)


@contextmanager
def _to_send(path: Path) -> Iterator[tuple[str, Any]]:
    """The name and the content of what is uploaded; a folder as a zip of it."""
    if path.is_dir():
        yield f"{path.resolve().name}.zip", FolderZip(path)
    else:
        with path.open("rb") as file:
            yield path.name, file


def _job(job_id: str) -> str:
    return f"/v1/jobs/{segment(job_id)}"


def _exports(checkpoint_id: str) -> str:
    return f"/v1/checkpoints/{segment(checkpoint_id)}/exports"


def _job_body(
    spec: JobSpec | Mapping[str, Any], name: str | None, metadata: Mapping[str, str] | None, resume_from: str | None
) -> dict[str, Any]:
    written = spec.model_dump(mode="json") if isinstance(spec, JobSpec) else dict(spec)
    begin = {"checkpoint_id": resume_from} if resume_from else None
    given = {"name": name, "metadata": dict(metadata) if metadata else None, "resume_from": begin}
    return {"spec": written, **_given(given)}


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _until(deadline: float) -> float:
    return min(LONG_POLL_SECONDS, max(0.0, deadline - time.monotonic()))
