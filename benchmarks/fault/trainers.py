"""The training processes of a job, by attempt, as the kernel lists them: who is alive, and whether two attempts ever were at once."""

import contextlib
import re
import threading
import time
from pathlib import Path

import psutil

LOOK_SECONDS = 0.05
STOPPED = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
_ATTEMPT = re.compile(rb"/(\w+)/attempt-(\d+)")


def trainers_of(job_id: str) -> dict[int, list[psutil.Process]]:
    """Processes that train for the job, by attempt; a guard is none of them, a launcher is."""
    found: dict[int, list[psutil.Process]] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            words = (folder / "cmdline").read_bytes()
            named = _ATTEMPT.search(words)
            if named and named[1].decode() == job_id and b"worker.guard" not in words and b"tether.py" not in words:
                found.setdefault(int(named[2]), []).append(psutil.Process(int(folder.name)))
    return found


def guard_of(job_id: str) -> psutil.Process:
    """The process between the worker and the newest attempt's training."""
    trainers = trainers_of(job_id)
    return next(one for one in trainers[max(trainers)][0].parents() if "worker.guard" in one.cmdline())


class Overlap:
    """Looks every `LOOK_SECONDS` which attempts have a process that can run, and adds up while there are two."""

    def __init__(self, job_id: str) -> None:
        self.seconds = 0.0
        self._job_id = job_id
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="overlap", daemon=True)
        self._thread.start()

    def stop(self) -> float:
        self._ended.set()
        self._thread.join()
        return self.seconds

    def _look(self) -> None:
        before, were_two = time.monotonic(), False
        while not self._ended.wait(LOOK_SECONDS):
            alive = sum(any(_can_run(one) for one in ones) for ones in trainers_of(self._job_id).values())
            now = time.monotonic()
            self.seconds += (now - before) if were_two and alive > 1 else 0.0
            before, were_two = now, alive > 1


def _can_run(process: psutil.Process) -> bool:
    try:
        return process.status() not in STOPPED
    except psutil.NoSuchProcess:
        return False
