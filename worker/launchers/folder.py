"""The folder in which a worker and the agents of its gang meet, on a file system that both have.

    gang.json    what to run, written before the gang is submitted; readable by its owner alone, as it may hold a secret
    lease        until when it may run, by the wall clock, and whether it should save and leave; written over in place
    stream       what node 0 says: events, and when its agent began and how it ended; there from the beginning
    log.N        what the ranks of node N print

Nothing appears later whose absence a file system might remember, and nothing is renamed: NFS looks at a file's age when it is
opened and at a folder's only now and then. The clocks of the machines must agree to a second or so, as NTP has them.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.store.clock import host_seconds
from worker.launch import ALONE
from worker.launchers.contract import Plan

CARRIED = ("ATTUNE_REMOTE_REWARD_", "HF_", "NCCL_", "PYTHONSAFEPATH", "TORCH_ELASTIC_")
LEASE_BYTES = 64


@dataclass(frozen=True)
class GangFolder:
    path: Path

    @property
    def stream(self) -> Path:
        return self.path / "stream"

    def log(self, node: int) -> Path:
        return self.path / f"log.{node}"

    def create(self, plan: Plan, num_nodes: int) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self.stream.touch()
        for node in range(num_nodes):
            self.log(node).touch()
        self.write_lease(plan.until, stop=False)
        gang = self.path / "gang.json"
        gang.touch(mode=0o600)
        gang.write_text(json.dumps(_described(plan, num_nodes)))

    def gang(self) -> dict[str, Any]:
        return json.loads((self.path / "gang.json").read_text())

    def write_lease(self, until: float, *, stop: bool) -> None:
        """`until` is a reading of this host's clock; the other machines are told the wall clock's."""
        wall = time.time() + (until - host_seconds())
        line = json.dumps({"until": round(wall, 3), "stop": stop}).ljust(LEASE_BYTES)
        descriptor = os.open(self.path / "lease", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, line.encode(), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read_lease(self) -> tuple[float, bool]:
        """Until when it may run, by this host's clock, and whether it should leave. Raises OSError or ValueError."""
        lease = json.loads((self.path / "lease").read_text())
        return host_seconds() + (lease["until"] - time.time()), lease["stop"]


def _described(plan: Plan, num_nodes: int) -> dict[str, Any]:
    return {
        # the agent's own interpreter, where the operator has no command: an image has it elsewhere
        "trainer": None if plan.trainer == ALONE else plan.trainer,
        "arguments": plan.arguments,
        "processes": plan.processes,
        "num_nodes": num_nodes,
        "workdir": str(plan.workdir),
        "grace_seconds": plan.grace_seconds,
        "env": carried(plan.env),
    }


def carried(env: Mapping[str, str]) -> dict[str, str]:
    """What the ranks are told of the worker's environment; paths and cards are their own machine's."""
    return {name: value for name, value in env.items() if name.startswith(CARRIED)}


def num_nodes(processes: int, most_on_a_node: int) -> int:
    """The fewest nodes that share the processes evenly."""
    return next(
        nodes for nodes in range(1, processes + 1) if processes % nodes == 0 and processes // nodes <= most_on_a_node
    )


@dataclass
class Followed:
    """A file that another machine appends to; opened anew at every look, so that a file system shows what is there."""

    path: Path
    offset: int = 0

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < self.offset:  # a log that grew too long began anew
                self.offset = 0
            file.seek(self.offset)
            found = file.read(2**24)
        self.offset += len(found)
        return found
