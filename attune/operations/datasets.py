"""Data sets: uploaded, checked, looked at row by row."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from alignment_core.reports import DatasetReport
from alignment_core.spec.sources import OnBadRow
from attune.connection import Connected, segment
from attune.requests import FilePath, dataset_fields
from attune.resources.data import Dataset, Pair
from attune.uploads import Progress, upload
from attune.waiting import until_ready


def upload_dataset(
    client: Connected,
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
    answer = upload(client.connection, "dataset", Path(path), said, idempotency_key, progress)
    return Dataset.model_validate(answer)


def datasets(client: Connected) -> Iterator[Dataset]:
    """Data sets, newest first, page by page as they are needed."""
    return (Dataset.model_validate(entry) for entry in client.connection.pages("/v1/datasets", []))


def get_dataset(client: Connected, dataset_id: str, *, wait_seconds: float = 0) -> Dataset:
    """The data set as it is, or as it is when its check has ended or `wait_seconds` are over."""
    return Dataset.model_validate(client.connection.poll(f"/v1/datasets/{segment(dataset_id)}", wait_seconds))


def dataset_report(client: Connected, dataset_id: str) -> DatasetReport:
    """What preflight found in the data, with row numbers."""
    return DatasetReport.model_validate(client.connection.request("GET", f"/v1/datasets/{segment(dataset_id)}/report"))


def dataset_pairs(
    client: Connected, dataset_id: str, *, problem: str | None = None, after_row: int = 0
) -> Iterator[Pair]:
    """The rows behind `after_row`, all or those with this problem of the report, page by page as they are needed."""
    path, only = f"/v1/datasets/{segment(dataset_id)}/pairs", [] if problem is None else [("problem", problem)]
    after = str(after_row) if after_row else None
    return (Pair.model_validate(entry) for entry in client.connection.pages(path, only, after))


def pair_thumbnail(client: Connected, dataset_id: str, row: int, side: Literal["chosen", "rejected", "image"]) -> bytes:
    """A small JPEG of an image of a row; `AttuneError` where none is kept."""
    return client.connection.request_bytes(f"/v1/datasets/{segment(dataset_id)}/pairs/{row}/{side}.jpg")


def wait_for_dataset(client: Connected, dataset_id: str, timeout_seconds: float = 600.0) -> Dataset:
    """The data set once it is ready; `AttuneError` with its error when it failed, `TimeoutError` when neither."""
    return until_ready(
        lambda seconds: get_dataset(client, dataset_id, wait_seconds=seconds),
        f"dataset {dataset_id} is",
        timeout_seconds,
    )


def delete_dataset(client: Connected, dataset_id: str) -> None:
    """Remove a data set for good; refused while a job that has not ended needs it."""
    client.connection.request("DELETE", f"/v1/datasets/{segment(dataset_id)}")
