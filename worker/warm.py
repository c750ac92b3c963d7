"""A training process that has imported everything and waits for its job (`python -m alignment_core wait`): jobs start seconds sooner.

It serves one job and is a process like any other from then on: under its own guard, ended with the lease, by a signal, or with the
worker. Before that it knows of no job and has no secret of any; what a job adds to the environment arrives with it, through a
pipe. One that has died, hangs or is not there costs nothing: the job's process is started as if there were none.

The base model is not kept in it: its weights are mapped, and the kernel keeps the pages of the last ones as long as there is memory.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

import psutil
import structlog

from service.store.clock import host_seconds
from worker.launchers.contract import Plan
from worker.process import EXIT_SECONDS, TrainingProcess, guarded

LOOK_SECONDS = 2.0
AGAIN_SECONDS = 30.0  # after one was taken or died: the start of a job has the processors for itself
READY_SECONDS = 20.0  # it is nearer to its end than one that begins to import now
ANSWER_SECONDS = 5.0
MOST_JOB_BYTES = 32_768  # half of what a pipe holds
NEEDED_BYTES = 2**30  # twice what one takes

log = structlog.get_logger()


class WarmTrainer:
    """At most one waiting process, as long as `least_free_bytes` of the host's memory are free beside it."""

    def __init__(
        self, trainer: Sequence[str], environment: Callable[[], Mapping[str, str]], least_free_bytes: int
    ) -> None:
        self._trainer = tuple(trainer)
        self._environment = environment
        self._least_free_bytes = least_free_bytes
        self._waiting: subprocess.Popen[bytes] | None = None
        self._not_before = 0.0
        self._lock = threading.Lock()

    @property
    def guard_pid(self) -> int | None:
        """Of the waiting process, from which it descends."""
        waiting = self._waiting
        return None if waiting is None else waiting.pid

    def keep(self, until: threading.Event) -> None:
        """See to it that one waits, until the event is set."""
        while not until.is_set():
            self.look()
            until.wait(LOOK_SECONDS)
        self.close()

    def look(self) -> None:
        """Start one where none waits, and end it where memory has become short."""
        with self._lock:
            free = psutil.virtual_memory().available
            if self._waiting is not None and self._waiting.poll() is not None:
                log.warning("waiting_trainer_ended", exit_code=self._waiting.returncode)
                self._drop()
            if free < self._least_free_bytes:
                self._drop()
            has_room = free >= self._least_free_bytes + NEEDED_BYTES
            if self._waiting is None and has_room and time.monotonic() > self._not_before:
                self._waiting = self._started()

    def take(self, plan: Plan) -> TrainingProcess | None:
        """The process, with the job that it is told; None where there is none that answers, or the job is not for one."""
        if plan.processes > 1 or plan.trainer != self._trainer:
            return None
        job = self._job_of(plan)
        with self._lock:
            guard, self._waiting = self._waiting, None
            self._not_before = time.monotonic() + AGAIN_SECONDS
        if guard is None:
            return None
        patience = (plan.until - host_seconds()) / 3  # the rest of the lease is for a process that is started instead
        if len(job) <= MOST_JOB_BYTES and _answers(guard, min(READY_SECONDS, patience)) and _tell(guard, plan, job):
            log.info("waiting_trainer_taken")
            return TrainingProcess(guard, log_path=plan.log_path, grace_seconds=plan.grace_seconds)
        log.warning("waiting_trainer_not_taken")
        end(guard)
        return None

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _started(self) -> subprocess.Popen[bytes] | None:
        try:
            return guarded([*self._trainer, "wait"], until=float("inf"), cwd="/", env=self._environment())
        except OSError as error:  # no room for a process: a job finds that out for itself
            log.warning("waiting_trainer_not_started", reason=str(error))
            self._not_before = time.monotonic() + AGAIN_SECONDS
            return None

    def _drop(self) -> None:
        guard, self._waiting = self._waiting, None
        if guard is not None:
            self._not_before = time.monotonic() + AGAIN_SECONDS
            end(guard)

    def _job_of(self, plan: Plan) -> bytes:
        known = self._environment()
        added = {name: value for name, value in plan.env.items() if known.get(name) != value}
        job = {"arguments": plan.arguments, "environment": added, "cwd": str(plan.workdir)}
        return json.dumps(job).encode()


def end(guard: subprocess.Popen[bytes]) -> None:
    """End what waits under the guard, and wait until nothing of it is left."""
    if guard.poll() is None:
        guard.send_signal(signal.SIGUSR1)
    try:
        guard.wait(EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        guard.kill()  # the kernel ends what it has started
        guard.wait()
    for stream in (guard.stdin, guard.stdout, guard.stderr):
        with contextlib.suppress(BrokenPipeError):
            _pipe(stream).close()


def _tell(guard: subprocess.Popen[bytes], plan: Plan, job: bytes) -> bool:
    """The time first: from then on it runs no longer than any training."""
    try:
        os.write(_pipe(guard.stdin).fileno(), f"{plan.until!r}\n".encode() + job + b"\n")
    except BrokenPipeError:
        return False
    return _answers(guard, min(ANSWER_SECONDS, (plan.until - host_seconds()) / 3))


def _answers(guard: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether it says its empty line within this time; what comes after that is not read."""
    stream = _pipe(guard.stdout).fileno()
    ready, _, _ = select.select([stream], [], [], max(seconds, 0.0))
    return bool(ready) and os.read(stream, 1) == b"\n"


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None, "the guard was started with three pipes"
    return stream
