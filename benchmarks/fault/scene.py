"""A job, what is seen of it, and when the fault came: from these all figures of a row follow."""

import contextlib
import hashlib
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from attune.client import Client
from attune.errors import AttuneError
from attune.resources.jobs import Job
from benchmarks.fault.deployment import Deployment
from benchmarks.fault.trainers import Overlap
from demo.assets import ASSETS
from service.store import events
from service.store.models import Checkpoint
from service.store.models import Job as JobRow
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.runs import EventRecord

LORA = "pytorch_lora_weights.safetensors"
STEPS, EVERY = 24, 6
LOOK_SECONDS = 0.03
STEP, ENDS = "step_completed", ("evaluation_completed", "run_completed")
LONGEST_SECONDS = 240.0
PROMPTS = ["a small red circle", "a big blue square", "a green cross on the left", "a yellow triangle at the top"]

Moment = Literal["claimed", "caching", "training", "saving", "evaluating"]
"""What the job is doing when the fault comes."""


def spec_of(dataset_id: str, processes: int = 1) -> dict[str, Any]:
    return {
        "model": "shapes",
        "method": {"type": "diffusion_dpo", "dataset": dataset_id, "beta": 1000},
        "adapter": {"type": "lora", "rank": 4},
        "training": {
            "steps": STEPS,
            "batch_size": 8 // processes,
            "gradient_accumulation_steps": 1,
            "learning_rate": 1e-3,
            "start_checks": False,
        },
        "checkpoints": {"every": EVERY},
        "evaluation": {
            "prompts": PROMPTS,
            "seeds_per_prompt": 1,
            "num_inference_steps": 8,
            "bootstrap_resamples": 100,
            "rewards": ["colorfulness"],
        },
        "resources": {"processes": processes, "device": "cpu", "num_cpu_threads": 1},
        "seed": 3,
    }


@dataclass(frozen=True)
class Seen:
    event: EventRecord
    at: float  # time.monotonic() of when it was in the database


@dataclass(frozen=True)
class Row:
    """What one fault came to. `recovery_seconds` is the longest time without progress from its beginning on."""

    fault: str
    parts: str
    status: str
    recovery_seconds: float | None
    overlap_seconds: float
    stale_writes: int
    steps_twice: int
    attempts: int
    resumed_by_owner: int
    lost: int
    weights_equal: bool

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def kept_its_promises(self) -> bool:
        return self.status == "succeeded" and self.weights_equal and not (self.stale_writes or self.lost)


class Scene:
    """A job on a deployment: its events as they arrive, its attempts as they live, and what had been acknowledged when the fault came."""

    def __init__(self, deployment: Deployment, dataset_id: str, processes: int = 1) -> None:
        self.deployment = deployment
        self.seen: list[Seen] = []
        self.struck_at: float | None = None
        self.resumed_by_owner = 0
        self._spec = spec_of(dataset_id, processes)
        self._acknowledged: set[str] = set()
        self._ended = threading.Event()
        self.job_id = ""

    # --- before and during ---

    def submit(self) -> None:
        with self.deployment.client as client:
            self.job_id = client.create_job(self._spec).id
        self._overlap = Overlap(self.job_id)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def reach(self, moment: Moment) -> None:
        """Return as soon as the job is there."""
        deadline = time.monotonic() + LONGEST_SECONDS
        while not self._is(moment):
            if time.monotonic() > deadline or self._has_failed:
                with self.deployment.client as client:
                    job = client.get_job(self.job_id)
                raise TimeoutError(f"the job was never {moment}: {job.status}, {job.error}")
            time.sleep(0.0 if moment == "saving" else 0.02)  # a small checkpoint is whole within milliseconds

    def strike(self) -> None:
        """Say that the fault begins now: what a client could have read until now must be there at the end."""
        if self.job_id:
            self._acknowledged = {one.id for one in self._events(0)} | self._checkpoints()
        self.struck_at = time.monotonic()

    def close_if_unstruck(self) -> None:
        """A fault that this machine cannot show: its job is of no interest."""
        if self.struck_at is None and self.job_id:
            self._overlap.stop()
            self._ended.set()
            with self.deployment.client as client, contextlib.suppress(AttuneError):  # it may have ended
                client.cancel(self.job_id)

    @property
    def step(self) -> int:
        return max((one.event.data["step"] for one in self.seen if one.event.type == STEP), default=0)

    @property
    def _has_failed(self) -> bool:
        return any(one.event.type == "run_failed" for one in self.seen)

    def _is(self, moment: Moment) -> bool:
        match moment:
            case "claimed":
                with self.deployment.store.read() as session:
                    return session.scalar(sa.select(JobRow.worker_id).where(JobRow.id == self.job_id)) is not None
            case "training":
                return self.step >= EVERY + 2
            case "saving":  # a folder has this name until it is whole
                return any(self._writing(self.deployment.root / "work")) or any(self._writing(self.deployment.root))
            case "caching" | "evaluating":
                return any(one.event.data.get("phase") == moment for one in self.seen)

    def _writing(self, work: Path) -> Iterator[Path]:
        return work.glob(f"*/{self.job_id}/attempt-*/checkpoints/.writing-*")

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            try:
                found = self._events(self.seen[-1].event.seq if self.seen else 0)
            except SQLAlchemyError:  # the database is what the fault befell
                continue
            self.seen += [Seen(one, time.monotonic()) for one in found]

    def _events(self, after: int) -> tuple[EventRecord, ...]:
        return events.list_events(self.deployment.store, DEFAULT_PROJECT_ID, self.job_id, after, 10_000)

    def _checkpoints(self) -> set[str]:
        with self.deployment.store.read() as session:
            return set(session.scalars(sa.select(Checkpoint.id).where(Checkpoint.job_id == self.job_id)))

    # --- after ---

    def end(self) -> Job:
        """The job once it has ended, resumed as its owner would where it may be."""
        with self.deployment.client as client:
            deadline = time.monotonic() + LONGEST_SECONDS
            while True:
                job = client.get_job(self.job_id)
                is_resumable = job.status == "paused" or (job.status == "failed" and job.error and job.error.retryable)
                if is_resumable and self.resumed_by_owner < 3:
                    self.resumed_by_owner += 1
                    client.resume(self.job_id)
                elif job.is_terminal or time.monotonic() > deadline:
                    return job
                time.sleep(0.1)

    def row(self, fault: str, undisturbed: str) -> Row:
        job = self.end()
        overlap = self._overlap.stop()
        self._ended.set()
        told = self._events(0)
        with self.deployment.client as client:
            weights = weights_sha256(client, job) if job.status == "succeeded" else ""
        return Row(
            fault=fault,
            parts=self.deployment.parts,
            status=job.status,
            recovery_seconds=self._recovery(),
            overlap_seconds=round(overlap, 2),
            stale_writes=stale_writes(told),
            steps_twice=steps_twice(told),
            attempts=job.attempt,
            resumed_by_owner=self.resumed_by_owner,
            lost=len(self._acknowledged - {one.id for one in told} - self._checkpoints()),
            weights_equal=weights == undisturbed,
        )

    def _recovery(self) -> float | None:
        if self.struck_at is None:
            return None
        return recovery_seconds([(one.event, one.at) for one in self.seen], self.struck_at)


def recovery_seconds(seen: list[tuple[EventRecord, float]], struck_at: float) -> float | None:
    """The longest time without a new step from the fault on; where no step was left, until the evaluation or the run was done.

    None where nothing was left to do.
    """
    steps = [event.data["step"] for event, at in seen if at <= struck_at and event.type == STEP]
    known, times = max(steps, default=0), [struck_at]
    for event, at in seen:
        if at > struck_at and event.type == STEP and event.data["step"] > known:
            known = event.data["step"]
            times.append(at)
    if len(times) == 1:
        times += [at for event, at in seen if at > struck_at and event.type in ENDS][:1]
    gaps = [after - before for before, after in pairwise(times)]
    return round(max(gaps), 1) if gaps else None


def stale_writes(told: tuple[EventRecord, ...]) -> int:
    """Events of an attempt that a later attempt had come before: none may be there."""
    newest, count = 0, 0
    for event in told:
        count += event.attempt < newest
        newest = max(newest, event.attempt)
    return count


def steps_twice(told: tuple[EventRecord, ...]) -> int:
    steps = [one.data["step"] for one in told if one.type == STEP]
    return len(steps) - len(set(steps))


def weights_sha256(client: Client, job: Job) -> str:
    """Of the file as a user downloads it."""
    assert job.latest_checkpoint_id is not None
    with tempfile.TemporaryDirectory() as target:
        aligned = client.download_checkpoint(job.latest_checkpoint_id, Path(target) / "aligned")
        return hashlib.sha256((aligned / LORA).read_bytes()).hexdigest()


def upload_pairs(deployment: Deployment) -> str:
    with deployment.client as client:
        return client.wait_for_dataset(client.upload_dataset(ASSETS / "pairs.parquet").id, timeout_seconds=120).id
