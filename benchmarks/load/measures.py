"""Each measure yields rows: what, seconds, and what it is held against in the same run."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from alignment_core.events import CheckpointSaved, StepCompleted
from attune.client import Client
from benchmarks.load.rows import copy_jobs, copy_points
from benchmarks.load.server import Server
from service.store import keys, leases
from service.store.events import record_event, record_events
from service.store.objects import open_objects
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.base import StoredFile

Row = dict[str, Any]
SPEC = {
    "model": "shapes",
    "method": {"type": "ddpo", "prompts": ["a red circle", "a blue square"], "reward": "colorfulness"},
}
EVENTS_AT_ONCE = 100
CHUNK_BYTES = 2**20
NAME = "weights.safetensors"


def row(server: Server, what: str, seconds: float, against: str, base_seconds: float, **more: Any) -> Row:
    return {
        "parts": server.parts,
        "what": what,
        "seconds": round(seconds, 5),
        "against": against,
        "base_seconds": round(base_seconds, 5),
        "ratio": round(seconds / base_seconds, 2),
        **more,
    }


def submits(server: Server) -> Iterator[Row]:
    seconds, base = server.median_seconds(lambda client: client.post("/v1/jobs", json={"spec": SPEC}), 50)
    yield row(server, "submit a job", seconds, "/healthz", base, per_second=round(1 / seconds, 1))


def lists(server: Server, sizes: list[int]) -> Iterator[Row]:
    """A page of twenty, the newest and in the middle, by filter, and one job, with so many jobs in the database."""
    newest = httpx.post(f"{server.url}/v1/jobs", json={"spec": SPEC}).raise_for_status().json()["id"]
    there = 0
    for size in sizes:
        copy_jobs(server.store, newest, there + 1, size - there)
        there = size
        middle = f"job_{size // 2:026d}"
        asked = {
            "the first page of jobs": "/v1/jobs",
            "a page in the middle": f"/v1/jobs?after={middle}",
            "a page by two states": "/v1/jobs?status=failed&status=cancelled",
            "a page by metadata": "/v1/jobs?metadata[team]=7",
            "a page by state and metadata": "/v1/jobs?status=failed&metadata[team]=7",
            "one job": f"/v1/jobs/{middle}",
            "usage": "/v1/usage",
            "/metrics": "/metrics",
        }
        for what, path in asked.items():
            seconds, base = server.median_seconds(lambda client, path=path: client.get(path), 15)
            yield row(server, f"{what}, {size:,} jobs", seconds, "/healthz", base)


def points(server: Server, count: int) -> Iterator[Row]:
    """A job of so many steps: written by the worker's way, and read thinned and by ranges."""
    job_id = new_job(server)
    batches, began = 5, time.perf_counter()
    for batch in range(batches):
        steps = range(batch * EVENTS_AT_ONCE + 1, (batch + 1) * EVENTS_AT_ONCE + 1)
        record_events(server.store, job_id, 1, [_step(step) for step in steps])
    each = (time.perf_counter() - began) / (batches * EVENTS_AT_ONCE)
    _, base = server.median_seconds(lambda client: client.get("/healthz"))
    yield row(server, "write a step's metrics", each, "/healthz", base, per_second=round(1 / each))
    long_id = new_job(server)
    record_events(server.store, long_id, 1, [_step(1)])
    copy_points(server.store, long_id, count)
    path = f"/v1/jobs/{long_id}/metrics"
    asked = {
        "thinned to 1,000": path,
        "thinned to 1,000, one key": f"{path}?keys=loss",
        "the last 1,000": f"{path}?from_step={count - 999}",
        "100,000 as CSV": f"{path}?max_points=100000&format=csv",
    }
    for what, where in asked.items():
        seconds, base = server.median_seconds(lambda client, where=where: client.get(where), 5)
        yield row(server, f"{count:,} points, {what}", seconds, "/healthz", base)


def _step(step: int) -> StepCompleted:
    metrics = {"loss": 0.5, "margin": 0.1, "implicit_accuracy": 0.6, "grad_norm": 1.0}
    return StepCompleted(step=step, total_steps=10**6, metrics=metrics, step_seconds=0.1, eta_seconds=1.0)


def transfers(server: Server, size_bytes: int) -> Iterator[Row]:
    """A file up and down, against a plain copy, or against boto3 alone where the object store is S3."""
    source, target = server.root / "source.parquet", server.root / "target"
    _write(source, size_bytes)
    gigabytes = f"{size_bytes / 1e9:.2g} GB"
    up, down, against = _plain(server, source, target)
    with Client(server.url, timeout_seconds=3600) as client:
        began = time.perf_counter()
        client.upload_dataset(source)
        yield row(server, f"upload of {gigabytes}", time.perf_counter() - began, against, up, size_bytes=size_bytes)
    path = _stored_checkpoint(server, source)
    began = time.perf_counter()
    with (
        httpx.stream("GET", f"{server.url}{path}", follow_redirects=True, timeout=3600) as answer,
        target.open("wb") as to,
    ):
        for chunk in answer.raise_for_status().iter_bytes(CHUNK_BYTES):
            to.write(chunk)
    assert target.stat().st_size == size_bytes
    yield row(server, f"download of {gigabytes}", time.perf_counter() - began, against, down, size_bytes=size_bytes)


def _write(path: Path, size_bytes: int) -> None:
    """What the service takes for a parquet file until a worker looks into it."""
    block = bytes(range(256)) * 4096
    with path.open("wb") as file:
        file.write(b"PAR1")
        for start in range(8, size_bytes, len(block)):
            file.write(block[: size_bytes - start])
        file.write(b"PAR1")


def _plain(server: Server, source: Path, target: Path) -> tuple[float, float, str]:
    """Seconds up and down without the service, and what that was."""
    if server.s3 is None:
        began = time.perf_counter()
        shutil.copyfile(source, target)
        seconds = time.perf_counter() - began
        return seconds, seconds, "a plain copy"
    client, bucket = server.s3.client(), server.settings.s3_bucket
    began = time.perf_counter()
    client.upload_file(str(source), bucket, "plain")
    up = time.perf_counter() - began
    began = time.perf_counter()
    client.download_file(bucket, "plain", str(target))
    down = time.perf_counter() - began
    client.delete_object(Bucket=bucket, Key="plain")
    return up, down, "plain boto3"


def _stored_checkpoint(server: Server, source: Path) -> str:
    """The path under which the service serves the file as one of a checkpoint, put there as a worker does."""
    job_id = new_job(server)
    key = keys.checkpoint_prefix(DEFAULT_PROJECT_ID, job_id, 1, 1) + NAME
    open_objects(server.settings).put_file(key, source)
    size_bytes, sha256 = source.stat().st_size, 64 * "0"
    stored = StoredFile(path=NAME, size_bytes=size_bytes, sha256=sha256, object_key=key)
    saved = CheckpointSaved(step=1, path="checkpoints/1", kind="full", size_bytes=size_bytes, is_final=False)
    record_event(server.store, job_id, 1, saved, [stored])
    found = httpx.get(f"{server.url}/v1/jobs/{job_id}/checkpoints").raise_for_status().json()["data"]
    return f"/v1/checkpoints/{found[0]['id']}/files/{NAME}"


def new_job(server: Server) -> str:
    """One that a worker holds, in its first attempt."""
    job_id = httpx.post(f"{server.url}/v1/jobs", json={"spec": SPEC}).raise_for_status().json()["id"]
    leases.claim(server.store, job_id, "benchmark", 3600)
    return job_id
