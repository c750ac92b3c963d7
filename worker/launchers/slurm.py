"""Gangs as Slurm jobs: sbatch, squeue (sacct for what has left the queue), scancel.

A job's name holds the job of Attune and the attempt, so that whoever comes after a lost worker finds what it left. Options and
states as in Slurm's manual pages (sbatch(1), squeue(1), sacct(1), scancel(1); 23.11).
"""

import getpass
import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import structlog

from alignment_core.errors import AlignmentError
from service.store.clock import host_seconds
from worker.launch import ALONE
from worker.launchers.cluster import LOST, Ended, State
from worker.launchers.contract import EXIT_LOST, EXIT_STOPPED, Plan
from worker.launchers.folder import GangFolder

COMMAND_SECONDS = 60.0
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "RESV_DEL_HOLD", "SPECIAL_EXIT")
TAKEN_AWAY = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "REVOKED")

SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --comment={comment}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --output={log}
#SBATCH --open-mode=append
#SBATCH --no-requeue
{options}
[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
export PET_MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export PET_MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
exec srun --kill-on-bad-exit=1 {agent}
"""

log = structlog.get_logger()


@dataclass(frozen=True)
class SlurmEngine:
    """`options` are the site's own of sbatch; `{processes}` in them is the number of processes on a node."""

    options: Sequence[str] = ()
    most_on_a_node: int = 8
    poll_seconds: float = 10.0
    python: Sequence[str] = field(default=ALONE[:3])

    def submit(self, plan: Plan, folder: GangFolder, num_nodes: int) -> None:
        script = folder.path / "job.sh"
        script.write_text(script_of(self, plan, folder.path, num_nodes))
        done = _slurm(["sbatch", "--parsable", str(script)], env=dict(plan.env))  # the ranks' too: no key is in it
        if done is None or done.returncode:
            raise AlignmentError("launcher_refused", f"sbatch: {_last_line(done)}", category="system", retryable=True)

    def state(self, job_id: str, attempt: int) -> State:
        of_it = [f"--user={getpass.getuser()}", f"--name={name_of(job_id, attempt)}"]
        done = _slurm(["squeue", *of_it, "--states=all", "--noheader", "--format=%T"])
        if done is None or done.returncode:
            return "unknown"
        if found := done.stdout.split():
            return state_of(found[-1])
        past = ["--starttime=now-7days", "--allocations", "--noheader", "--parsable2", "--format=State"]
        done = _slurm(["sacct", *of_it, *past])
        if done is not None and not done.returncode and (found := done.stdout.splitlines()):
            return state_of(found[-1].split()[0])  # `CANCELLED by 1000`
        return LOST

    def remove(self, job_id: str, attempt: int) -> None:
        _slurm(["scancel", f"--user={getpass.getuser()}", f"--name={name_of(job_id, attempt)}"])

    def attempts(self, job_id: str) -> list[int]:
        done = _slurm(["squeue", f"--user={getpass.getuser()}", "--noheader", "--format=%j"])
        prefix = name_of(job_id, "")
        names = [] if done is None else done.stdout.split()
        return [int(name.removeprefix(prefix)) for name in names if name.startswith(prefix)]


def name_of(job_id: str, attempt: int | str) -> str:
    return f"attune-{job_id}-{attempt}"


def script_of(engine: SlurmEngine, plan: Plan, folder: Path, num_nodes: int) -> str:
    ends_at = datetime.now(UTC).timestamp() + plan.until - host_seconds()
    options = [option.replace("{processes}", str(plan.processes // num_nodes)) for option in engine.options]
    return SCRIPT.format(
        name=name_of(plan.job_id, plan.attempt),
        comment=f"attune,attempt={plan.attempt},lease={datetime.fromtimestamp(ends_at, UTC):%Y-%m-%dT%H:%M:%SZ}",
        nodes=num_nodes,
        log=folder / "slurm.log",
        options="\n".join(f"#SBATCH {option}" for option in options),
        agent=shlex.join([*engine.python, "worker.launchers.agent", str(folder)]),
    )


def state_of(word: str) -> State:
    """What one of Slurm's states means for a gang."""
    match word:
        case "COMPLETED":
            return Ended(0, word)
        case "OUT_OF_MEMORY":
            return Ended(-signal.SIGKILL, word)
        case _ if word in WAITING:
            return "waiting"
        case _ if word in TAKEN_AWAY:
            return Ended(EXIT_STOPPED, word)
        case "RUNNING" | "COMPLETING" | "STAGE_OUT" | "SIGNALING" | "STOPPED" | "RESIZING":
            return "running"
        case _:  # FAILED, CANCELLED, TIMEOUT, DEADLINE, and what may come
            return Ended(EXIT_LOST, word)


def _slurm(command: Sequence[str], env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str] | None:
    """None when it cannot be asked just now."""
    try:
        return subprocess.run(
            command, env=env or os.environ, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("slurm_unreachable", command=command[0], error=type(error).__name__)
        return None


def _last_line(done: subprocess.CompletedProcess[str] | None) -> str:
    said = [] if done is None else (done.stderr or done.stdout).strip().splitlines()
    return said[-1] if said else "no answer"
