"""A process that speaks the training process's protocol without training: what the worker's tests start.

It reads the same command line as `python -m alignment_core`, prints the same events, writes checkpoint folders of the
same shape, resumes from them, watches stdin and SIGTERM. A step's "metric" depends on the seed and the step alone, and
its state is the sum of them, so a resumed run can be compared with an undisturbed one. The environment variable
`TRAINER_BEHAVIOUR` (JSON) says how slowly it steps and what befalls it.
"""

import argparse
import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from alignment_core.browsing import BrowsedRow, BrowsingWriter
from alignment_core.errors import DISK_UNAVAILABLE
from alignment_core.events import (
    ActionAnswered,
    CheckpointSaved,
    EvaluationCompleted,
    Event,
    ExportCompleted,
    ExportProgressed,
    FileRecord,
    PhaseChanged,
    RunCompleted,
    RunFailed,
    RunStarted,
    RunStopped,
    SamplesDrawn,
    StepCompleted,
    TrackingFileWritten,
    event_to_json,
)
from alignment_core.reports import DatasetProblem, DatasetReport, RowProblem
from alignment_core.spec import JobSpec

EXIT_STOPPED = 75
BEHAVIOUR = json.loads(os.environ.get("TRAINER_BEHAVIOUR", "{}"))
stopping = threading.Event()
tracked: list[str] = []


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    run_parser = commands.add_parser("run")
    run_parser.add_argument("spec", type=Path)
    run_parser.add_argument("--sources", type=Path)
    run_parser.add_argument("--workdir", type=Path, required=True)
    run_parser.add_argument("--cache-dir", type=Path, required=True)
    run_parser.add_argument("--resume-from", type=Path)
    run_parser.add_argument("--check-only", action="store_true")
    run_parser.add_argument("--track", action="append", default=[])
    check_parser = commands.add_parser("check")
    check_parser.add_argument("path", type=Path)
    check_parser.add_argument("--columns", type=json.loads)
    check_parser.add_argument("--on-bad-row", choices=["fail", "drop"], default="fail")
    check_parser.add_argument("--browsing", type=Path, required=True)
    check_parser.add_argument("--filename", required=True)
    export_parser = commands.add_parser("export")
    export_parser.add_argument("checkpoint", type=Path)
    export_parser.add_argument("--format", required=True)
    export_parser.add_argument("--out", type=Path, required=True)
    export_parser.add_argument("--sources", type=Path, required=True)
    export_parser.add_argument("--cache-dir", type=Path, required=True)
    export_parser.add_argument("--report", type=Path)
    commands.add_parser("wait")
    arguments = parser.parse_args(words)
    if arguments.command == "wait":
        return wait()
    if arguments.command == "export":
        return export(arguments)
    if arguments.command == "check":
        return check(arguments.path, arguments.columns, arguments.browsing)
    tracked.extend(arguments.track)
    return run(JobSpec.model_validate_json(arguments.spec.read_text()), arguments.workdir, arguments.resume_from)


def wait() -> int:
    """What `BEHAVIOUR` has befall it before its job, or the run that the job says."""
    match BEHAVIOUR.get("waiting"):
        case "dies":
            return 1
        case "is silent":
            time.sleep(600)
        case "does not answer":
            print(flush=True)
            time.sleep(600)
    print(flush=True)
    if not (line := os.read(0, 65_536)):
        return 0
    job = json.loads(line)
    os.environ.update(job["environment"])
    BEHAVIOUR.update(json.loads(os.environ.get("TRAINER_BEHAVIOUR", "{}")))
    os.chdir(job["cwd"])
    print(flush=True)
    return main(job["arguments"])


def export(arguments: argparse.Namespace) -> int:
    """A card that says what was given, or what `BEHAVIOUR` has befall it."""
    if failure := BEHAVIOUR.get("export_fails"):
        print(RunFailed(code=failure, message="as told", category="user", retryable=False).model_dump_json())
        return 1
    print(ExportProgressed(percent=50.0).model_dump_json(), flush=True)
    time.sleep(BEHAVIOUR.get("export_seconds", 0))
    files = sorted(path.relative_to(arguments.checkpoint).as_posix() for path in arguments.checkpoint.rglob("*.*"))
    sources = json.loads(arguments.sources.read_text())
    arguments.out.mkdir()
    told = {"format": arguments.format, "files": files, "sources": sources}
    (arguments.out / "README.md").write_text(json.dumps(told))
    content = (arguments.out / "README.md").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    record = FileRecord(path="README.md", size_bytes=len(content), sha256=digest)
    print(ExportCompleted(files=[record]).model_dump_json(), flush=True)
    return 0


def run(spec: JobSpec, workdir: Path, resume_from: Path | None) -> int:
    if not BEHAVIOUR.get("deaf"):
        signal.signal(signal.SIGTERM, lambda *_: stopping.set())
        threading.Thread(target=watch_stdin, daemon=True).start()
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if BEHAVIOUR.get("tells_environment"):
        (workdir / "environment.json").write_text(json.dumps(dict(os.environ)))
    if "child" in BEHAVIOUR:
        subprocess.Popen(BEHAVIOUR["child"], stdout=subprocess.DEVNULL)
    emit(PhaseChanged(phase="loading"))
    state = resume(spec, workdir, resume_from)
    start = state["step"]
    emit(started(spec, start))
    print(f"log: starting at step {start}", file=sys.stderr, flush=True)
    for step in range(start + 1, spec.training.steps + 1):
        befall(step)
        if stopping.is_set():
            return leave(spec, workdir, state)
        time.sleep(BEHAVIOUR.get("step_seconds", 0.005))
        loss = ((spec.seed + step) * 2654435761 % 1000) / 1000
        state = {"step": step, "total": state["total"] + loss}
        emit(StepCompleted(step=step, total_steps=spec.training.steps, metrics={"loss": loss}, step_seconds=0.01))
        if step % spec.checkpoints.every == 0 or step == spec.training.steps:
            save(spec, workdir, state)
        answer(workdir, step)
    if stopping.is_set():
        return leave(spec, workdir, state)
    evaluate(spec, workdir, state)
    emit(RunCompleted(step=state["step"]))
    return 0


def answer(workdir: Path, step: int) -> None:
    """What was asked, once each."""
    for path in sorted((workdir / "asked").glob("*.json")):
        request = json.loads(path.read_text())
        if request["id"] not in answered:
            answered.add(request["id"])
            emit(ActionAnswered(id=request["id"], action=request["action"], step=step))


answered: set[str] = set()


def befall(step: int) -> None:
    if step != BEHAVIOUR.get("at_step"):
        return
    match BEHAVIOUR["event"]:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "crash":
            print("Traceback: the stand-in met the unforeseen", file=sys.stderr, flush=True)
            os._exit(3)
        case "fail":
            emit(RunFailed(code="loss_not_finite", message="the loss is NaN", category="user", retryable=False))
            sys.exit(1)
        case "garbage":
            sys.stdout.write("no event\n" + "x" * BEHAVIOUR.get("num_garbage_bytes", 100) + '\n{"type": "unknown"}\n\n')
        case "hang":  # PyDLL keeps the interpreter's lock, so no thread of this process runs any more, and no handler
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # else a signal would end the sleep
            ctypes.PyDLL(None).sleep(600)
        case "no_disk":
            if Path(BEHAVIOUR["while"]).exists():
                message = "a disk that the run writes to is full"
                emit(RunFailed(code=DISK_UNAVAILABLE, message=message, category="capacity", retryable=True))
                sys.exit(1)
        case "silence":
            sys.exit(0)
        case unknown:
            raise ValueError(f"unknown event {unknown!r}")


def leave(spec: JobSpec, workdir: Path, state: dict) -> int:
    if state["step"] and not (step_folder(workdir, state["step"]) / "manifest.json").exists():
        save(spec, workdir, state)
    emit(RunStopped(step=state["step"]))
    return EXIT_STOPPED


def watch_stdin() -> None:
    """Its end means that the worker is gone. The buffered `sys.stdin` must not be blocked on when Python exits."""
    while os.read(0, 1):
        pass
    stopping.set()


def resume(spec: JobSpec, workdir: Path, resume_from: Path | None) -> dict:
    manifests = [json.loads(path.read_text()) for path in workdir.glob("checkpoints/step-*/manifest.json")]
    steps = [manifest["step"] for manifest in manifests if manifest["spec_sha256"] == spec.sha256()]
    if manifests and not steps:
        raise ValueError("the checkpoints belong to another spec")
    if not steps and resume_from is not None:
        return json.loads((resume_from / "training_state" / "state.json").read_text())
    if not steps:
        return {"step": 0, "total": 0.0}
    return json.loads((step_folder(workdir, max(steps)) / "training_state" / "state.json").read_text())


def step_folder(workdir: Path, step: int) -> Path:
    return workdir / "checkpoints" / f"step-{step:08d}"


def save(spec: JobSpec, workdir: Path, state: dict) -> None:
    emit(PhaseChanged(phase="saving"))
    folder, partial = step_folder(workdir, state["step"]), workdir / "checkpoints" / ".partial"
    contents = {
        "pytorch_lora_weights.safetensors": json.dumps(state["total"]).encode(),
        "training_state/state.json": json.dumps(state).encode(),
    }
    for name, content in contents.items():
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).write_bytes(content)
    files = [
        {"path": name, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    ]
    manifest = {
        "format_version": 1,
        "step": state["step"],
        "kind": "lora",
        "spec_sha256": spec.sha256(),
        "files": files,
    }
    (partial / "manifest.json").write_text(json.dumps(manifest))
    partial.rename(folder)
    if "tensorboard" in tracked:
        log = workdir / "tensorboard"
        log.mkdir(exist_ok=True)
        path = log / f"events.out.tfevents.{len(list(log.iterdir())):010d}"
        path.write_text(f"up to {state['step']}, told by {sorted(name for name in os.environ if 'MLFLOW' in name)}")
        emit(TrackingFileWritten(path=str(path.relative_to(workdir))))
    emit(
        CheckpointSaved(
            step=state["step"],
            path=str(folder.relative_to(workdir)),
            kind="lora",
            is_final=state["step"] == spec.training.steps,
            size_bytes=sum(file["size_bytes"] for file in files),
        )
    )
    emit(PhaseChanged(phase="training"))


def evaluate(spec: JobSpec, workdir: Path, state: dict) -> None:
    emit(PhaseChanged(phase="evaluating"))
    folder = workdir / "evaluation" / f"step-{state['step']:08d}"
    folder.mkdir(parents=True)
    (folder / "grid.png").write_bytes(b"\x89PNG\r\n\x1a\n of the stand-in")
    report = {"step": state["step"], "verdict": "improved", "total": state["total"]}
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "report.html").write_text("<!doctype html><title>of the stand-in</title>")
    relative = folder.relative_to(workdir)
    emit(SamplesDrawn(step=state["step"], path=str(relative / "grid.png"), prompts=["a red circle"]))
    page = str(relative / "report.html")
    emit(EvaluationCompleted(step=state["step"], path=str(relative / "report.json"), page=page, report=report))


def started(spec: JobSpec, start: int) -> RunStarted:
    return RunStarted(
        spec=spec.model_dump(mode="json"),
        spec_sha256=spec.sha256(),
        learning_rate=1e-5,
        examples_per_step=1,
        total_steps=spec.training.steps,
        device="cpu",
        precision="fp32",
        resumed_from_step=start or None,
        versions={},
    )


def _broken(path: Path) -> DatasetProblem:
    message = f"no file 'a.png' in {path.name}"
    return DatasetProblem(
        code="missing_image",
        severity="error",
        message=message,
        count=1,
        rows=[2],
        details=[RowProblem(row=2, message=message)],
    )


def check(path: Path, columns: dict[str, str] | None, browsing: Path) -> int:
    content = path.read_bytes()
    if not content.startswith(b"PAR1"):
        message = f"{path.name} is no parquet file: it does not start with PAR1"
        emit(RunFailed(code="unreadable_file", message=message, category="user", retryable=False))
        return 1
    with BrowsingWriter(browsing) as writer:
        for row in range(1, 4):
            writer.add(BrowsedRow(row=row, is_usable=True, prompt=f"prompt {row}"), {})
        writer.finish(lambda _: [])
    report = DatasetReport(
        format="parquet",
        num_rows=3,
        num_usable_rows=3,
        num_groups=3,
        num_unique_prompts=3,
        num_empty_prompts=0,
        num_ties=0,
        num_soft_labels=0,
        num_swapped=0,
        chosen_first_share=None,
        image_sizes={"32x32": 6},
        size_bytes=len(content),
        content_sha256=hashlib.sha256(content).hexdigest(),
        problems=[_broken(path)] if b"broken" in content else [_told(columns)] if columns else [],
    )
    print(report.model_dump_json(), flush=True)
    return 0


def _told(columns: dict[str, str]) -> DatasetProblem:
    return DatasetProblem(code="columns", severity="warning", message=json.dumps(columns), count=3, rows=[1])


def emit(event: Event) -> None:
    try:
        print(event_to_json(event), flush=True)
    except BrokenPipeError:
        stopping.set()  # nobody reads any more: the worker is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    sys.exit(main())
