"""Client: the HTTP API as methods. Synchronous, one connection pool, safe to share between threads.

with Client("http://127.0.0.1:8000") as client:
    dataset = client.wait_for_dataset(client.upload_dataset(Path("pairs.parquet")).id)
    job = client.create_job(spec)
    for event in client.events(job.id): ...
    client.download_checkpoint(client.result_checkpoint(job.id), Path("aligned"))
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import httpx

from alignment_core.events import Action
from alignment_core.reports import DatasetReport, EvaluationReport
from alignment_core.spec import JobSpec
from alignment_core.spec.exports import ExportFormat
from alignment_core.spec.sources import OnBadRow
from attune.admin import Admin
from attune.candidates import Candidates
from attune.connection import Connection, checked_url, segment
from attune.downloads import download_file
from attune.evaluations import Evaluations
from attune.event_stream import follow
from attune.labelings import Labelings
from attune.requests import (
    checkpoint_path,
    dataset_fields,
    exports_path,
    given,
    job_body,
    job_path,
    key_headers,
    logs_of,
    prompt_set_path,
    pushes_path,
)
from attune.resources import (
    Alias,
    Ancestry,
    CatalogEntry,
    Checkpoint,
    CheckpointFile,
    Dataset,
    Export,
    Job,
    JobAction,
    JobEvent,
    JobStatus,
    JobSummary,
    MetricPoint,
    Pair,
    Promotion,
    PromptSet,
    Push,
    Sample,
    SignedLink,
    Sweep,
    SweepSummary,
    Upload,
    Validation,
    Weights,
)
from attune.result_files import (
    WEIGHTS_FILES,
    WeightsFormat,
    files_of,
    save_checkpoint,
    save_export,
    save_weights,
    unpack,
)
from attune.retention import Retention
from attune.uploads import Progress, upload
from attune.waiting import until_ended, until_ready
from attune.webhooks import Webhooks

DEFAULT_URL = "http://127.0.0.1:8000"
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
        self.admin = Admin(self._connection)
        self.retention = Retention(self._connection)
        self.evaluations = Evaluations(self._connection)
        self.candidates = Candidates(self._connection)
        self.labelings = Labelings(self._connection)
        self.webhooks = Webhooks(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def sign_link(self, path: str, *, expires_in_seconds: int = 300) -> SignedLink:
        """An address that opens one file or stream of the API without a key, for whoever has it, for so long."""
        body = {"path": path, "expires_in": expires_in_seconds}
        link = SignedLink.model_validate(self._connection.request("POST", "/v1/links", json=body))
        here = self.base_url.rstrip("/") if link.url.startswith("/") else ""
        return link.model_copy(update={"url": here + link.url})

    # --- data sets ---

    def upload_dataset(
        self,
        path: FilePath,
        *,
        name: str | None = None,
        columns: Mapping[str, str] | None = None,
        on_bad_row: OnBadRow = "fail",
        idempotency_key: str | None = None,
        progress: Progress | None = None,
    ) -> Dataset:
        """Upload a parquet file, a zip, or a folder, which is zipped on its way; `wait_for_dataset` waits for its check.

        `columns` says which column is what where its name does not, such as `{"prompt": "caption", "chosen": "good"}`. With
        `on_bad_row="drop"` rows with an error are left out, counted and named in the report; otherwise one is enough to
        make the data set unusable.

        A large file goes in pieces, on over connections that break; a call for the same file goes on where one that was
        killed stopped. `progress` is then told how many bytes have left, and of how many.
        """
        said = dataset_fields(name, columns, on_bad_row)
        answer = upload(self._connection, "dataset", Path(path), said, idempotency_key, progress)
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

    def dataset_pairs(self, dataset_id: str, *, problem: str | None = None, after_row: int = 0) -> Iterator[Pair]:
        """The rows behind `after_row`, all or those with this problem of the report, page by page as they are needed."""
        path, only = f"/v1/datasets/{segment(dataset_id)}/pairs", [] if problem is None else [("problem", problem)]
        after = str(after_row) if after_row else None
        return (Pair.model_validate(entry) for entry in self._connection.pages(path, only, after))

    def pair_thumbnail(self, dataset_id: str, row: int, side: Literal["chosen", "rejected", "image"]) -> bytes:
        """A small JPEG of an image of a row; `AttuneError` where none is kept."""
        return self._connection.request_bytes(f"/v1/datasets/{segment(dataset_id)}/pairs/{row}/{side}.jpg")

    def wait_for_dataset(self, dataset_id: str, timeout_seconds: float = 600.0) -> Dataset:
        """The data set once it is ready; `AttuneError` with its error when it failed, `TimeoutError` when neither."""
        return until_ready(
            lambda seconds: self.get_dataset(dataset_id, wait_seconds=seconds),
            f"dataset {dataset_id} is",
            timeout_seconds,
        )

    def delete_dataset(self, dataset_id: str) -> None:
        """Remove a data set for good; refused while a job that has not ended needs it."""
        self._connection.request("DELETE", f"/v1/datasets/{segment(dataset_id)}")

    def unfinished_uploads(self) -> Iterator[Upload]:
        """Files on their way, newest first: of calls that are at work, or that ended before all was sent."""
        return (Upload.model_validate(entry) for entry in self._connection.pages("/v1/uploads", []))

    def get_upload(self, upload_id: str) -> Upload:
        """A file on its way, and how much of it has arrived."""
        return Upload.model_validate(self._connection.request("GET", f"/v1/uploads/{segment(upload_id)}"))

    def delete_upload(self, upload_id: str) -> None:
        """Remove what has arrived of a file; otherwise it goes by itself, a day after the last of it came."""
        self._connection.request("DELETE", f"/v1/uploads/{segment(upload_id)}")

    # --- prompts ---

    def upload_prompts(
        self,
        path: FilePath,
        *,
        name: str | None = None,
        column: str | None = None,
        idempotency_key: str | None = None,
        progress: Progress | None = None,
    ) -> PromptSet:
        """Upload prompts, as text, jsonl, JSON, CSV, TSV or parquet, for specs to name: `"prompts": "ps_..."`.

        `column` says which column or key holds them where its name does not. `AttuneError` names the rows that cannot be read.
        A large file goes in pieces, as in `upload_dataset`.
        """
        said = given({"name": name or None, "column": column})
        answer = upload(self._connection, "prompt_set", Path(path), said, idempotency_key, progress)
        return PromptSet.model_validate(answer)

    def prompt_sets(self) -> Iterator[PromptSet]:
        """Prompt sets, newest first, page by page as they are needed."""
        return (PromptSet.model_validate(entry) for entry in self._connection.pages("/v1/prompt_sets", []))

    def get_prompt_set(self, prompt_set_id: str) -> PromptSet:
        return PromptSet.model_validate(self._connection.request("GET", prompt_set_path(prompt_set_id)))

    def prompts(self, prompt_set_id: str) -> Iterator[str]:
        """The prompts of a set, the first of its file first, page by page as they are needed."""
        path = f"{prompt_set_path(prompt_set_id)}/prompts"
        return (entry["prompt"] for entry in self._connection.pages(path, []))

    def download_prompts(self, prompt_set_id: str, path: FilePath) -> Path:
        """Save a prompt set as `path`: jsonl, an object with the key `prompt` a line."""
        found = self.get_prompt_set(prompt_set_id)
        file = CheckpointFile(path="prompts.jsonl", size_bytes=found.size_bytes, sha256=found.file_sha256)
        return download_file(self._connection.http, f"{prompt_set_path(prompt_set_id)}/file", file, Path(path))

    def delete_prompts(self, prompt_set_id: str) -> None:
        """Remove a prompt set for good; refused while a job that has not ended needs it."""
        self._connection.request("DELETE", prompt_set_path(prompt_set_id))

    # --- aliases ---

    def promote(
        self,
        checkpoint_id: str,
        alias: str = "champion",
        *,
        evaluation_id: str | None = None,
        force: bool = False,
        reason: str | None = None,
        idempotency_key: str | None = None,
    ) -> Promotion:
        """Point a name at a checkpoint; jobs then name it as their model, `"@champion"`.

        Its job's own report has to show that it is better, or that of `evaluation_id`, in which it competes.
        Raises `AttuneError` with the code `promotion_unproven` where no report shows that it is better; `force` with a `reason` promotes anyhow.
        """
        told = {"evaluation_id": evaluation_id, "force": force or None, "reason": reason}
        body = given({"checkpoint_id": checkpoint_id, "alias": alias, **told})
        answer = self._connection.request("POST", "/v1/promotions", json=body, headers=key_headers(idempotency_key))
        return Promotion.model_validate(answer)

    def aliases(self) -> list[Alias]:
        """The project's names, in their order."""
        return [Alias.model_validate(entry) for entry in self._connection.pages("/v1/aliases", [])]

    def get_alias(self, alias: str) -> Alias:
        """What the name points at, with the report that earned it."""
        return Alias.model_validate(self._connection.request("GET", f"/v1/aliases/{segment(alias)}"))

    def promotions(self, alias: str | None = None) -> Iterator[Promotion]:
        """The history of a name, or of all of them, newest first, page by page as they are needed."""
        only = [] if alias is None else [("alias", alias)]
        return (Promotion.model_validate(entry) for entry in self._connection.pages("/v1/promotions", only))

    def get_promotion(self, promotion_id: str) -> Promotion:
        return Promotion.model_validate(self._connection.request("GET", f"/v1/promotions/{segment(promotion_id)}"))

    def delete_alias(self, alias: str) -> None:
        """Take a name away; its history stays, and so does the checkpoint."""
        self._connection.request("DELETE", f"/v1/aliases/{segment(alias)}")

    # --- weights ---

    def upload_weights(
        self,
        path: FilePath,
        *,
        name: str | None = None,
        idempotency_key: str | None = None,
        progress: Progress | None = None,
    ) -> Weights:
        """Upload a LoRA as safetensors, for jobs to start from; `wait_for_weights` waits for its check.

        A large file goes in pieces, as in `upload_dataset`.
        """
        said = given({"name": name or None})
        answer = upload(self._connection, "weights", Path(path), said, idempotency_key, progress)
        return Weights.model_validate(answer)

    def weights(self) -> Iterator[Weights]:
        """Uploaded weights, newest first, page by page as they are needed."""
        return (Weights.model_validate(entry) for entry in self._connection.pages("/v1/weights", []))

    def get_weights(self, weights_id: str, *, wait_seconds: float = 0) -> Weights:
        """The weights as they are, or as they are when their check has ended or `wait_seconds` are over."""
        return Weights.model_validate(self._poll(f"/v1/weights/{segment(weights_id)}", wait_seconds))

    def wait_for_weights(self, weights_id: str, timeout_seconds: float = 600.0) -> Weights:
        """The weights once they are ready; `AttuneError` with their error when they failed, `TimeoutError` when neither."""
        return until_ready(
            lambda seconds: self.get_weights(weights_id, wait_seconds=seconds),
            f"weights {weights_id} are",
            timeout_seconds,
        )

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
            self._connection.request("POST", "/v1/jobs", json=body, params=params, headers=key_headers(idempotency_key))
        )

    def fork_resume(
        self,
        checkpoint_id: str,
        steps: int,
        *,
        name: str | None = None,
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Queue a job that goes on from the checkpoint with the same spec, up to `steps` in all."""
        return self._fork(checkpoint_id, {"mode": "resume", "steps": steps}, name, metadata, idempotency_key)

    def fork_warm_start(
        self,
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
        return self._fork(checkpoint_id, body, name, metadata, idempotency_key)

    def _fork(
        self,
        checkpoint_id: str,
        fork: Mapping[str, Any],
        name: str | None,
        metadata: Mapping[str, str] | None,
        key: str | None,
    ) -> Job:
        body = {**fork, **given({"name": name, "metadata": dict(metadata) if metadata else None})}
        path = f"{checkpoint_path(checkpoint_id)}/fork"
        return Job.model_validate(self._connection.request("POST", path, json=body, headers=key_headers(key)))

    def ancestry(self, job_id: str) -> Ancestry:
        """Where a job comes from, and what was forked from it."""
        return Ancestry.model_validate(self._connection.request("GET", f"{job_path(job_id)}/ancestry"))

    def validate(
        self,
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
        return Validation.model_validate(self._connection.request("POST", "/v1/jobs/validate", json=body))

    def get_job(self, job_id: str, *, wait_seconds: float = 0) -> Job:
        """The job as it is, or as it is when it has ended or `wait_seconds` are over, whichever comes first."""
        return Job.model_validate(self._poll(job_path(job_id), wait_seconds))

    def wait_for_job(self, job_id: str, timeout_seconds: float | None = None) -> Job:
        """The job once it has ended; `TimeoutError` when it has not within `timeout_seconds`."""
        return until_ended(lambda seconds: self.get_job(job_id, wait_seconds=seconds), timeout_seconds)

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

    def pause(self, job_id: str, *, keep: Literal["last_step", "last_checkpoint"] = "last_step") -> JobSummary:
        """Leave the machine to others: once the last step is saved, or at once and without the steps since the last checkpoint."""
        answer = self._connection.request("POST", f"{job_path(job_id)}/pause", json={"keep": keep})
        return JobSummary.model_validate(answer)

    def ask(self, job_id: str, action: Action, *, idempotency_key: str | None = None) -> JobAction:
        """Have a job save a checkpoint, draw a picture or probe the policy after its next step."""
        body, headers = {"action": action}, key_headers(idempotency_key)
        answer = self._connection.request("POST", f"{job_path(job_id)}/actions", json=body, headers=headers)
        return JobAction.model_validate(answer)

    def actions(self, job_id: str) -> list[JobAction]:
        """What was asked of a job, the earliest first."""
        return [JobAction.model_validate(one) for one in self._connection.pages(f"{job_path(job_id)}/actions", [])]

    def resume(self, job_id: str) -> JobSummary:
        return self._change(job_id, "resume")

    def delete_job(self, job_id: str) -> None:
        """Remove a job that has ended, with all that it left."""
        self._connection.request("DELETE", job_path(job_id))

    def _change(self, job_id: str, verb: Literal["cancel", "resume"]) -> JobSummary:
        return JobSummary.model_validate(self._connection.request("POST", f"{job_path(job_id)}/{verb}"))

    # --- sweeps ---

    def create_sweep(self, body: Mapping[str, Any], *, idempotency_key: str | None = None) -> Sweep:
        """Run a job for each point of `body["search"]`, at most `at_once` of them at the same time; `body` as of `POST /v1/sweeps`."""
        headers = key_headers(idempotency_key)
        return Sweep.model_validate(self._connection.request("POST", "/v1/sweeps", json=dict(body), headers=headers))

    def get_sweep(self, sweep_id: str) -> Sweep:
        """The sweep with its score table."""
        return Sweep.model_validate(self._connection.request("GET", f"/v1/sweeps/{segment(sweep_id)}"))

    def sweeps(self) -> Iterator[SweepSummary]:
        """Sweeps, newest first, page by page as they are needed."""
        return (SweepSummary.model_validate(entry) for entry in self._connection.pages("/v1/sweeps", []))

    def cancel_sweep(self, sweep_id: str) -> SweepSummary:
        """Queue no further trial, and cancel the jobs that have not ended."""
        return SweepSummary.model_validate(self._connection.request("POST", f"/v1/sweeps/{segment(sweep_id)}/cancel"))

    def delete_sweep(self, sweep_id: str) -> None:
        """Remove one that is over, with its table; its jobs stay."""
        self._connection.request("DELETE", f"/v1/sweeps/{segment(sweep_id)}")

    # --- what a run says and leaves ---

    def events(self, job_id: str, *, after: str | None = None) -> Iterator[JobEvent]:
        """Every event after the id `after`, then live ones until the job has ended; reconnects by itself."""
        return follow(self._connection, job_id, after)

    def past_events(self, job_id: str) -> Iterator[JobEvent]:
        """Every event so far, page by page as they are needed."""
        return (JobEvent.model_validate(entry) for entry in self._connection.pages(f"{job_path(job_id)}/events", []))

    def metrics(
        self,
        job_id: str,
        *,
        keys: Sequence[str] = (),
        from_step: int | None = None,
        max_points: int | None = None,
        extremes: bool = False,
    ) -> list[MetricPoint]:
        """Figures by step; all names when `keys` is empty.

        Thinned to `max_points` steps, evenly; or with `extremes` to so many points of each figure, its spikes among them.
        """
        keep = "extremes" if extremes else None
        params = {"keys": ",".join(keys) or None, "from_step": from_step, "max_points": max_points, "keep": keep}
        answer = self._connection.request("GET", f"{job_path(job_id)}/metrics", params=given(params))
        return [MetricPoint.model_validate(point) for point in answer["data"]]

    def report(self, job_id: str) -> EvaluationReport:
        """The proof: base against policy on held-out prompts."""
        return EvaluationReport.model_validate(self._connection.request("GET", f"{job_path(job_id)}/report"))

    def manifest(self, job_id: str) -> dict[str, Any]:
        """Everything that decided the result and everything that the job left, by hash."""
        return self._connection.request("GET", f"{job_path(job_id)}/manifest")

    def download_report_page(self, job_id: str, path: FilePath) -> Path:
        """Save the proof as `path`: one HTML page for people."""
        page = self._connection.request_bytes(f"{job_path(job_id)}/report.html")
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(page)
        return path

    def download_tensorboard(self, job_id: str, folder: FilePath) -> Path:
        """Unpack the job's TensorBoard files of all attempts into `folder`, for `tensorboard --logdir`.

        Raises `AttuneError` with the code `tensorboard_not_found` while there are none.
        """
        return unpack(self._connection.request_bytes(f"{job_path(job_id)}/tensorboard"), Path(folder))

    def logs(self, job_id: str) -> str:
        """The end of what the job's processes printed, attempt after attempt."""
        return logs_of(self._connection, job_path(job_id))

    def samples(self, job_id: str) -> list[Sample]:
        """Pictures of base and policy, the earliest step first."""
        return [Sample.model_validate(entry) for entry in self._connection.pages(f"{job_path(job_id)}/samples", [])]

    def newest_samples(self, job_id: str) -> Iterator[Sample]:
        """The same, the latest step first, page by page as they are needed."""
        newest = [("newest_first", "true")]
        return (Sample.model_validate(one) for one in self._connection.pages(f"{job_path(job_id)}/samples", newest))

    def download_sample(self, sample: Sample, path: FilePath) -> Path:
        """Save the picture as `path`."""
        path = Path(path)
        return download_file(self._connection.http, sample.image_url, sample.file(path.name), path)

    def checkpoints(self, job_id: str) -> list[Checkpoint]:
        """The job's checkpoints, the earliest step first."""
        return [
            Checkpoint.model_validate(entry) for entry in self._connection.pages(f"{job_path(job_id)}/checkpoints", [])
        ]

    def get_checkpoint(self, checkpoint_id: str) -> Checkpoint:
        return Checkpoint.model_validate(self._connection.request("GET", checkpoint_path(checkpoint_id)))

    def newest_checkpoints(self, job_id: str) -> Iterator[Checkpoint]:
        """The same, the latest step first, page by page as they are needed."""
        pages = self._connection.pages(f"{job_path(job_id)}/checkpoints", [("newest_first", "true")])
        return (Checkpoint.model_validate(one) for one in pages)

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
        return files_of(self._connection, checkpoint_id)

    def download_checkpoint(self, checkpoint_id: str, folder: FilePath, *, with_training_state: bool = False) -> Path:
        """Download a checkpoint into `folder`, each file checked against its sha256.

        What an interrupted call has left there is not fetched again. Training state is only of use to Attune itself.
        """
        return save_checkpoint(self._connection, checkpoint_id, Path(folder), with_training_state=with_training_state)

    def download_weights(self, checkpoint_id: str, path: FilePath, *, format: WeightsFormat) -> Path:
        """Download a LoRA as the one file `path`: for diffusers, or for ComfyUI, A1111, InvokeAI and kohya's scripts.

        Raises `AttuneError` with the code `format_not_available` where the checkpoint has no such file.
        """
        return save_weights(self._connection, checkpoint_id, Path(path), format)

    def has_weights(self, checkpoint_id: str, format: WeightsFormat) -> bool:
        """Whether training saved the LoRA as this one file, so that no worker is needed for it."""
        return any(file.path == WEIGHTS_FILES[format] for file in self.checkpoint_files(checkpoint_id))

    def export_checkpoint(self, checkpoint_id: str, format: ExportFormat) -> Export:
        """Ask for a checkpoint in another form; a worker makes it, once. One that failed is made anew."""
        answer = self._connection.request("POST", exports_path(checkpoint_id), json={"format": format})
        return Export.model_validate(answer)

    def exports(self, checkpoint_id: str) -> list[Export]:
        """The forms that a checkpoint has been asked for in, whether they are ready or not."""
        return [Export.model_validate(entry) for entry in self._connection.pages(exports_path(checkpoint_id), [])]

    def wait_for_export(self, checkpoint_id: str, format: ExportFormat, timeout_seconds: float = 3600.0) -> Export:
        """The export once it is ready; `AttuneError` with its error when it failed, `TimeoutError` when neither."""
        path = f"{exports_path(checkpoint_id)}/{format}"
        return until_ready(
            lambda seconds: Export.model_validate(self._poll(path, seconds)), f"the {format} export is", timeout_seconds
        )

    def download_export(self, checkpoint_id: str, target: FilePath, *, format: ExportFormat) -> Path:
        """Have a checkpoint made in another form, wait for it, and save it, each file checked against its sha256.

        `target` is the file to write for `kohya` and `single_file`, and a folder for the others.
        """
        self.export_checkpoint(checkpoint_id, format)
        export = self.wait_for_export(checkpoint_id, format)
        return save_export(self._connection, export, Path(target), format)

    def push_checkpoint(
        self,
        checkpoint_id: str,
        repo_id: str,
        *,
        branch: str = "main",
        private: bool = True,
        format: ExportFormat | None = None,
    ) -> Push:
        """Have a worker commit a checkpoint to a repository of the Hub, with its model card; once for each repository and branch."""
        body = {"repo_id": repo_id, "branch": branch, "private": private, **given({"format": format})}
        return Push.model_validate(self._connection.request("POST", pushes_path(checkpoint_id), json=body))

    def wait_for_push(self, push: Push, timeout_seconds: float = 3600.0) -> Push:
        """The push once it is there; `AttuneError` with its error when it failed, `TimeoutError` when neither."""
        path = f"{pushes_path(push.checkpoint_id)}/{segment(push.id)}"
        return until_ready(
            lambda seconds: Push.model_validate(self._poll(path, seconds)), "the push is", timeout_seconds
        )

    def pushes(self, checkpoint_id: str) -> list[Push]:
        """Where a checkpoint was pushed, or is to be."""
        return [Push.model_validate(entry) for entry in self._connection.pages(pushes_path(checkpoint_id), [])]

    def delete_push(self, checkpoint_id: str, push_id: str) -> None:
        """Forget a push; what the Hub has stays there, and asking for it again pushes again."""
        self._connection.request("DELETE", f"{pushes_path(checkpoint_id)}/{segment(push_id)}")

    def delete_export(self, checkpoint_id: str, format: ExportFormat) -> None:
        """Remove a checkpoint's files in another form; they are made again when they are asked for."""
        self._connection.request("DELETE", f"{exports_path(checkpoint_id)}/{format}")

    def delete_sample(self, job_id: str, sample_id: str) -> None:
        """Remove a picture of a job."""
        self._connection.request("DELETE", f"{job_path(job_id)}/samples/{segment(sample_id)}")

    def delete_report(self, job_id: str) -> None:
        """Remove the proof of a job that has ended, with its page."""
        self._connection.request("DELETE", f"{job_path(job_id)}/report")

    def delete_checkpoint(self, checkpoint_id: str, *, even_result: bool = False) -> None:
        """Remove a checkpoint of a job that has ended; the job's result only with `even_result`."""
        params = {"even_result": "true"} if even_result else None
        self._connection.request("DELETE", checkpoint_path(checkpoint_id), params=params)

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
