"""What a gang runs on each of its nodes: the ranks of the node under a guard, until the lease in the gang's folder ends.

    python -P -m worker.launchers.agent FOLDER

Slurm's srun and a TrainJob's pods start it; which node it is and where the first one listens, the engine's environment says.
It is the worker's hand on another machine: it renews the guard's time from the folder, asks the ranks to leave when the folder
or the engine (SIGTERM) says so, and on node 0 writes rank 0's events where the worker reads them.
"""

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment_core.events import event_to_json
from worker.launch import ALONE, launched
from worker.launchers.contract import EXIT_STOPPED
from worker.launchers.folder import GangFolder
from worker.process import TrainingProcess, guarded

EVERY_SECONDS = 0.25
LOOK_EVERY_SECONDS = 0.5


def main(arguments: Sequence[str]) -> int:
    folder = GangFolder(Path(arguments[0]))
    gang, node = folder.gang(), node_of(os.environ)
    if node == 0 and folder.stream.stat().st_size:  # an engine that starts a gang again: its attempt is over
        return EXIT_STOPPED
    until, _ = folder.read_lease()
    env = {**os.environ, **gang["env"]}
    guard = guarded(command_of(gang, os.environ), until=until, cwd=Path(gang["workdir"]), env=env)
    with TrainingProcess(guard, log_path=folder.log(node), grace_seconds=gang["grace_seconds"]) as process:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=process.stop).start())
        threading.Thread(target=_obey_lease, args=(folder, process), daemon=True).start()
        _speak(folder, node, process)
    code = process.exit_code
    assert code is not None, "its stream has ended"
    if node == 0:
        _append(folder, [json.dumps({"gang": "ended", "exit_code": code})])
    return code if code >= 0 else 128 - code


def node_of(environ: Mapping[str, str]) -> int:
    """Kubeflow's torch policy says PET_NODE_RANK, srun with a task a node SLURM_PROCID."""
    return int(environ.get("PET_NODE_RANK") or environ.get("SLURM_PROCID") or 0)


def command_of(gang: Mapping[str, Any], environ: Mapping[str, str]) -> list[str]:
    """The ranks of this node; over several nodes torchrun waits for the others at the first one's address."""
    trainer, processes, nodes = gang["trainer"], gang["processes"], gang["num_nodes"]
    if nodes == 1 or trainer is not None:
        return [*launched(ALONE if trainer is None else trainer, processes // nodes), *gang["arguments"]]
    place = ["--nnodes", str(nodes), "--node-rank", str(node_of(environ))]
    first = ["--master-addr", environ["PET_MASTER_ADDR"], "--master-port", environ["PET_MASTER_PORT"]]
    torchrun = [*ALONE[:3], "torch.distributed.run", *place, *first, "--nproc-per-node", str(processes // nodes)]
    return [*torchrun, "-m", ALONE[3], *gang["arguments"]]


def _speak(folder: GangFolder, node: int, process: TrainingProcess) -> None:
    if node == 0:
        _append(folder, [json.dumps({"gang": "started"})])
    for batch in process.batches(EVERY_SECONDS):
        if node == 0 and batch:
            _append(folder, [event_to_json(event) for event in batch])


def _append(folder: GangFolder, lines: Sequence[str]) -> None:
    with folder.stream.open("a", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())


def _obey_lease(folder: GangFolder, process: TrainingProcess) -> None:
    """What cannot be read changes nothing: the guard keeps the time that was said last."""
    pause = threading.Event()
    while not pause.wait(LOOK_EVERY_SECONDS):
        with contextlib.suppress(OSError, ValueError, KeyError):
            until, stop = folder.read_lease()
            process.beat(until)
            if stop:
                process.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
