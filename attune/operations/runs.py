"""What a run says and shows: events, figures, pictures, the proof."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alignment_core.reports import EvaluationReport
from attune.connection import Connected, segment
from attune.downloads import download_file
from attune.event_stream import follow
from attune.requests import FilePath, given, job_path, logs_of
from attune.resources.runs import JobEvent, MetricPoint, Sample
from attune.result_files import unpack


def events(client: Connected, job_id: str, *, after: str | None = None) -> Iterator[JobEvent]:
    """Every event after the id `after`, then live ones until the job has ended; reconnects by itself."""
    return follow(client.connection, job_id, after)


def past_events(client: Connected, job_id: str) -> Iterator[JobEvent]:
    """Every event so far, page by page as they are needed."""
    return (JobEvent.model_validate(entry) for entry in client.connection.pages(f"{job_path(job_id)}/events", []))


def metrics(
    client: Connected,
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
    answer = client.connection.request("GET", f"{job_path(job_id)}/metrics", params=given(params))
    return [MetricPoint.model_validate(point) for point in answer["data"]]


def report(client: Connected, job_id: str) -> EvaluationReport:
    """The proof: base against policy on held-out prompts."""
    return EvaluationReport.model_validate(client.connection.request("GET", f"{job_path(job_id)}/report"))


def manifest(client: Connected, job_id: str) -> dict[str, Any]:
    """Everything that decided the result and everything that the job left, by hash."""
    return client.connection.request("GET", f"{job_path(job_id)}/manifest")


def download_report_page(client: Connected, job_id: str, path: FilePath) -> Path:
    """Save the proof as `path`: one HTML page for people."""
    page = client.connection.request_bytes(f"{job_path(job_id)}/report.html")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(page)
    return path


def download_tensorboard(client: Connected, job_id: str, folder: FilePath) -> Path:
    """Unpack the job's TensorBoard files of all attempts into `folder`, for `tensorboard --logdir`.

    Raises `AttuneError` with the code `tensorboard_not_found` while there are none.
    """
    return unpack(client.connection.request_bytes(f"{job_path(job_id)}/tensorboard"), Path(folder))


def logs(client: Connected, job_id: str) -> str:
    """The end of what the job's processes printed, attempt after attempt."""
    return logs_of(client.connection, job_path(job_id))


def samples(client: Connected, job_id: str) -> list[Sample]:
    """Pictures of base and policy, the earliest step first."""
    return [Sample.model_validate(entry) for entry in client.connection.pages(f"{job_path(job_id)}/samples", [])]


def newest_samples(client: Connected, job_id: str) -> Iterator[Sample]:
    """The same, the latest step first, page by page as they are needed."""
    newest = [("newest_first", "true")]
    return (Sample.model_validate(one) for one in client.connection.pages(f"{job_path(job_id)}/samples", newest))


def download_sample(client: Connected, sample: Sample, path: FilePath) -> Path:
    """Save the picture as `path`."""
    path = Path(path)
    return download_file(client.connection.http, sample.image_url, sample.file(path.name), path)


def delete_sample(client: Connected, job_id: str, sample_id: str) -> None:
    """Remove a picture of a job."""
    client.connection.request("DELETE", f"{job_path(job_id)}/samples/{segment(sample_id)}")


def delete_report(client: Connected, job_id: str) -> None:
    """Remove the proof of a job that has ended, with its page."""
    client.connection.request("DELETE", f"{job_path(job_id)}/report")
