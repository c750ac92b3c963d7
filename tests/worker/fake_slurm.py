"""Slurm's commands as far as the launcher uses them, the first argument being its name; it really runs the jobs.

FAKE_SLURM is a folder with a file a job: its name, its state and the process that runs it. A file `hold` there keeps jobs
waiting. What belongs to a job is known by SLURM_JOB_ID in its environment.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from marked import kill_all_with, pids_with

HOME = Path(os.environ["FAKE_SLURM"])
RUNNING = ("PENDING", "RUNNING")


def main() -> int:
    command, *arguments = sys.argv[1:]
    options = dict(one.removeprefix("--").partition("=")[::2] for one in arguments if one.startswith("--"))
    match command:
        case "sbatch":
            return sbatch(Path(arguments[-1]))
        case "srun":
            return srun([one for one in arguments if not one.startswith("--kill-on-bad-exit")])
        case "squeue":
            return squeue(options)
        case "scancel":
            return scancel(options["name"], os.environ.get("FAKE_STATE", "CANCELLED"))
        case "scontrol":
            print("127.0.0.1")
            return 0
    print("Slurm accounting storage is disabled", file=sys.stderr)
    return 1


def jobs() -> list[tuple[Path, str, str]]:
    return [(path, *path.read_text().split()) for path in sorted(HOME.glob("*.job"))]


def write(job: Path, name: str, state: str) -> None:
    partial = job.with_suffix(f".{os.getpid()}")
    partial.write_text(f"{name} {state}")
    partial.replace(job)


def sbatch(script: Path) -> int:
    text = script.read_text()
    if "--partition=nowhere" in text:
        print("sbatch: error: invalid partition specified: nowhere", file=sys.stderr)
        return 1
    settings = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", text, re.MULTILINE))
    number = len(jobs()) + 1
    job = HOME / f"{number}.job"
    waits = (HOME / "hold").exists()
    write(job, settings["job-name"], "PENDING" if waits else "RUNNING")
    print(number, flush=True)
    if not waits and os.fork() == 0:
        os.setsid()
        for descriptor in (0, 1, 2):
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
        environment = {"SLURM_JOB_ID": str(number), "SLURM_JOB_NODELIST": "here", "SLURM_NNODES": settings["nodes"]}
        with Path(settings["output"]).open("ab") as log:
            code = subprocess.call(["bash", script], env={**os.environ, **environment}, stdout=log, stderr=log)
        if job.exists() and job.read_text().endswith("RUNNING"):
            write(job, settings["job-name"], "FAILED" if code else "COMPLETED")
    return 0


def srun(command: list[str]) -> int:
    tasks = [
        subprocess.Popen(command, env={**os.environ, "SLURM_PROCID": str(number)})
        for number in range(int(os.environ["SLURM_NNODES"]))
    ]
    signal.signal(signal.SIGTERM, lambda *_: [task.terminate() for task in tasks])
    worst = 0
    while any(task.poll() is None for task in tasks):
        if not worst and (worst := max(abs(task.returncode or 0) for task in tasks)):
            for task in tasks:
                task.terminate()
        time.sleep(0.02)
    return max(abs(task.returncode) for task in tasks)


def squeue(options: dict[str, str]) -> int:
    for _, name, state in jobs():
        if options.get("name", name) == name and ("states" in options or state in RUNNING):
            print(name if options["format"] == "%j" else state)
    return 0


def scancel(wanted: str, after: str) -> int:
    for job, name, state in jobs():
        if name == wanted and state in RUNNING:
            write(job, name, after)
            end(job.stem)
    return 0


def end(number: str, kill_wait: float = 1.0) -> None:
    for pid in pids_with("SLURM_JOB_ID", number):
        if b"worker.launchers.agent" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + kill_wait
    while pids_with("SLURM_JOB_ID", number) and time.monotonic() < deadline:
        time.sleep(0.02)
    kill_all_with("SLURM_JOB_ID", number)


if __name__ == "__main__":
    sys.exit(main())
