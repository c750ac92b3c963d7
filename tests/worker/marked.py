"""Processes by what their environment says, as Slurm's and Kubernetes' own trackers know what belongs to a job."""

import contextlib
import os
import signal
from pathlib import Path


def pids_with(name: str, value: str) -> list[int]:
    wanted, found = f"{name}={value}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_dead = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            if not is_dead and wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def kill_all_with(name: str, value: str) -> None:
    while pids := [pid for pid in pids_with(name, value) if pid != os.getpid()]:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
