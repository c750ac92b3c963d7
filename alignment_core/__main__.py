"""A run without any server.

    python -m alignment_core run SPEC.yaml --workdir DIR      one JSON event a line on stdout, logs on stderr
    python -m alignment_core compare DIR --base STEP --policy STEP    the same report of any two checkpoints
    python -m alignment_core check DATA                       the preflight report of a dataset as JSON
    python -m alignment_core check-lora FILE                  what a LoRA file holds as JSON
    python -m alignment_core model SOURCE                     what the files of a model say, as JSON; nothing is loaded
    python -m alignment_core prepare DATA --out pairs.parquet    the same data as canonical parquet
    python -m alignment_core export CHECKPOINT --format kohya --out DIR    a checkpoint as another tool reads it

Exit codes of `run`: 0 completed, 75 stopped and resumable, 1 failed (the last line is a `run_failed` event). Of `check` and
`check-lora`: 0 usable, 3 read but not usable, 1 not readable (a `run_failed` line). Of `prepare`, `model` and `export`: 0
done, 1 not (a `run_failed` line).
SIGTERM and SIGINT ask it to save and leave, and so does the end of stdin when stdin is a pipe: a parent that dies takes
its run with it.
"""

import argparse
import json
import logging
import os
import sys
import threading
import traceback
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import yaml
from pydantic import TypeAdapter, ValidationError

from alignment_core.disk_errors import disk_error_of
from alignment_core.errors import AlignmentError, CheckpointError, DataError
from alignment_core.events import Event, RunFailed, RunStopped, event_to_json
from alignment_core.lifeline import end_with_launcher, stop_when_asked
from alignment_core.quiet import silence_imports, silence_progress_bars
from alignment_core.reports import EvaluationReport
from alignment_core.spec import ColumnMapping, JobSpec
from alignment_core.spec.exports import ExportFormat
from alignment_core.spec.mistakes import in_sentences
from alignment_core.spec.places import Sources
from alignment_core.spec.sources import OnBadRow

EXIT_COMPLETED, EXIT_FAILED, EXIT_UNUSABLE, EXIT_STOPPED = 0, 1, 3, 75  # 75 is EX_TEMPFAIL of sysexits.h
DEFAULT_CACHE = Path.home() / ".cache" / "attune"


def main() -> int:
    arguments = _parser().parse_args()
    silence_imports()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if arguments.command == "check":
        return _check(arguments.data, arguments.columns, arguments.on_bad_row)
    if arguments.command == "check-lora":
        return _check_lora(arguments.file)
    if arguments.command == "prepare":
        return _prepare(arguments.data, arguments.out, arguments.columns, arguments.on_bad_row)
    if arguments.command == "model":
        return _model(arguments.source)
    if arguments.command == "export":
        return _export(arguments)
    if arguments.command == "compare":
        return _compare(arguments.workdir, arguments.base, arguments.policy, arguments.sources, arguments.cache_dir)
    return _run(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m alignment_core", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="align a model")
    run.add_argument("spec", type=Path, help="job spec, YAML or JSON")
    run.add_argument(
        "--sources", type=Path, default=None, help="JSON file that says where the spec's catalog names and datasets are"
    )
    run.add_argument(
        "--workdir", type=Path, required=True, help="receives checkpoints and the report; resumed if it holds some"
    )
    run.add_argument(
        "--cache-dir", type=Path, default=None, help="VAE posteriors and text embeddings (default ~/.cache/attune)"
    )
    run.add_argument(
        "--resume-from", type=Path, default=None, help="checkpoint of another run to begin from; its spec may differ"
    )
    compare = commands.add_parser("compare", help="compare two checkpoints on the prompts of a work folder's spec")
    compare.add_argument("workdir", type=Path, help="work folder of a run; receives comparisons/")
    for side, default in (("base", "initial"), ("policy", "result")):
        help_text = (
            f"initial, result, latest, a step, or the path of a checkpoint or another work folder (default {default})"
        )
        compare.add_argument(f"--{side}", default=default, help=help_text)
    compare.add_argument("--sources", type=Path, default=None, help="as for run")
    compare.add_argument("--cache-dir", type=Path, default=None, help="as for run")
    check_lora = commands.add_parser("check-lora", help="say what a LoRA file holds")
    check_lora.add_argument("file", type=Path, help="a safetensors file under PEFT's, diffusers' or kohya's names")
    model = commands.add_parser("model", help="read what the files of a model say of it")
    model.add_argument("source", help='JSON such as {"type": "local", "path": FOLDER}, or a hub source')
    check = commands.add_parser("check", help="preflight a preference dataset")
    prepare = commands.add_parser("prepare", help="write a preference dataset of any form as canonical parquet")
    prepare.add_argument("--out", type=Path, required=True, help="the parquet file to write")
    for command in (check, prepare):
        command.add_argument("data", type=Path, help="a file or folder; docs/data.md lists the forms")
        command.add_argument(
            "--on-bad-row",
            choices=("fail", "drop"),
            default="fail",
            help="whether rows with an error stop it, or are left out and counted (default fail)",
        )
        command.add_argument("--columns", help='JSON: role to column, such as {"prompt": "caption"}')
    export = commands.add_parser("export", help="write a checkpoint as another tool reads it, with a model card")
    export.add_argument("checkpoint", type=Path, help="the folder of a checkpoint")
    export.add_argument("--format", choices=get_args(ExportFormat), required=True, help="docs/exports.md has the table")
    export.add_argument("--out", type=Path, required=True, help="an empty folder, or one that is made")
    export.add_argument("--sources", type=Path, default=None, help="as for run")
    export.add_argument("--cache-dir", type=Path, default=None, help="as for run")
    export.add_argument(
        "--report", type=Path, default=None, help="the run's report.json, whose figures the card repeats"
    )
    return parser


def _run(arguments: argparse.Namespace) -> int:
    spec_path, sources_path, workdir = arguments.spec, arguments.sources, arguments.workdir
    end_with_launcher()
    stop = stop_when_asked(EXIT_STOPPED)
    try:
        spec = _read_spec(spec_path)
        sources = Sources.model_validate_json(sources_path.read_bytes()) if sources_path else Sources()
    except (ValueError, OSError, yaml.YAMLError) as error:
        message = str(error) if isinstance(error, ValueError) else f"{spec_path}: {error}"
        return _failed(RunFailed(code="spec_invalid", message=message, category="user", retryable=False))
    try:
        return _follow(arguments, spec, sources, stop)
    except AlignmentError as error:
        return _failed(_run_failed(disk_error_of(error) or error, _latest_step(workdir)))
    except Exception as error:  # noqa: BLE001  the one place that turns our own mistakes into a failed run
        traceback.print_exc()
        if (without_disk := disk_error_of(error)) is not None:
            return _failed(_run_failed(without_disk, _latest_step(workdir)))
        return _failed(unexpected_failure(error, _latest_step(workdir)))


def _read_spec(path: Path) -> JobSpec:
    written = yaml.safe_load(path.read_bytes())
    try:
        return JobSpec.model_validate(written)
    except ValidationError as error:
        raise ValueError(f"{path} cannot be used:\n{in_sentences(error, written, JobSpec)}") from error


def _compare(workdir: Path, base: str, policy: str, sources_path: Path | None, cache_dir: Path | None) -> int:
    from alignment_core.prove.checkpoint_comparison import compare_checkpoints

    silence_progress_bars()
    try:
        sources = Sources.model_validate_json(sources_path.read_bytes()) if sources_path else Sources()
    except (ValidationError, OSError) as error:
        return _failed(
            RunFailed(code="sources_invalid", message=f"{sources_path}: {error}", category="user", retryable=False)
        )
    try:
        for event in compare_checkpoints(
            workdir, base=base, policy=policy, sources=sources, cache_dir=cache_dir or DEFAULT_CACHE
        ):
            _print(event)
    except AlignmentError as error:
        return _failed(_run_failed(error, None))
    return EXIT_COMPLETED


def _follow(arguments: argparse.Namespace, spec: JobSpec, sources: Sources, stop: threading.Event) -> int:
    from alignment_core.alignment import align
    from alignment_core.checkpoints import complete
    from alignment_core.training.run_training import checkpoint_saved

    silence_progress_bars()
    workdir, announced, known = arguments.workdir, None, 0
    run = align(spec, workdir, sources=sources, cache_dir=arguments.cache_dir, resume_from=arguments.resume_from)
    with closing(run) as events:
        for event in events:
            _print(event)
            announced = event.step if event.type == "checkpoint_saved" else announced
            known = max(known, announced or 0, (event.type == "run_started" and event.resumed_from_step) or 0)
            if _should_stop(stop, event):
                break
        else:
            return EXIT_COMPLETED
    step = _latest_step(workdir)
    for folder in complete(workdir / "checkpoints"):  # closing the run finished or saved some, and could not say so
        saved = checkpoint_saved(folder, workdir)
        if saved.step > known or (saved.step == step and step != announced):
            _print(saved)
    _print(RunStopped(step=step or 0))
    return EXIT_STOPPED


def _should_stop(stop: threading.Event, event: Event) -> bool:
    """Whether to leave now. Several processes leave after the same step, or one would wait for the others for ever."""
    if event.type == "run_completed":
        return False
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return stop.is_set()
    from accelerate.utils import reduce
    from torch import tensor

    return event.type == "step_completed" and bool(reduce(tensor(float(stop.is_set())), "sum"))


def _run_failed(error: AlignmentError, step: int | None) -> RunFailed:
    return RunFailed(
        code=error.code,
        message=error.message,
        category=error.category,
        retryable=error.retryable,
        hint=error.hint,
        step=step,
    )


def unexpected_failure(error: Exception, step: int | None) -> RunFailed:
    """What failed in a way that nobody foresaw: a machine that is too small or broken, or our own mistake."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return RunFailed(
            code="out_of_gpu_memory",
            message=str(error).split("\n")[0],
            category="capacity",
            retryable=True,
            hint="Lower training.batch_size and raise gradient_accumulation_steps, or set gradient_checkpointing.",
            step=step,
        )
    if isinstance(error, MemoryError) or "allocate memory" in str(error):  # torch's allocator says so in a RuntimeError
        return RunFailed(
            code="out_of_memory",
            message="the machine has not enough memory for the run",
            category="capacity",
            retryable=True,
            hint="Lower training.batch_size and evaluation.batch_size, or use a machine with more memory.",
            step=step,
        )
    if isinstance(error, torch.AcceleratorError):
        first_line = str(error).split("\n")[0]
        message, hint = f"the GPU failed: {first_line}", "Try again; if it fails so again, have the GPU looked at."
        return RunFailed(code="gpu_failed", message=message, category="system", retryable=True, hint=hint, step=step)
    message = f"{type(error).__name__}: {error}"
    return RunFailed(code="internal_error", message=message, category="system", retryable=True, step=step)


def _failed(event: RunFailed) -> int:
    _print(event)
    return EXIT_FAILED


def _columns(text: str | None) -> dict[str, str] | None:
    """A mapping of columns as JSON."""
    if text is None:
        return None
    try:
        found = TypeAdapter(ColumnMapping).validate_json(text)
    except ValidationError as error:
        problems = "; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors())
        raise DataError("columns_invalid", f"--columns: expected JSON of role to column: {problems}") from error
    return {str(role): name for role, name in found.items()}


def _prepare(data: Path, out: Path, columns: str | None, on_bad_row: OnBadRow) -> int:
    from alignment_core.datasets.prepare import prepare_parquet

    try:
        prepared = prepare_parquet(data, out, _columns(columns), on_bad_row)
    except AlignmentError as error:
        return _failed(_run_failed(error, None))
    print(json.dumps(asdict(prepared)), flush=True)  # noqa: T201
    return EXIT_COMPLETED


def _export(arguments: argparse.Namespace) -> int:
    from alignment_core.exports.export import export

    silence_progress_bars()
    try:
        sources = Sources.model_validate_json(arguments.sources.read_bytes()) if arguments.sources else Sources()
        report = EvaluationReport.model_validate_json(arguments.report.read_bytes()) if arguments.report else None
    except (ValidationError, OSError) as error:
        return _failed(RunFailed(code="export_invalid", message=str(error), category="user", retryable=False))
    try:
        out, form, cache_dir = arguments.out, arguments.format, arguments.cache_dir
        for event in export(arguments.checkpoint, out, form, sources=sources, report=report, cache_dir=cache_dir):
            print(event.model_dump_json(), flush=True)  # noqa: T201
    except Exception as error:  # noqa: BLE001  as for a run
        if (known := disk_error_of(error) or error) is error and not isinstance(error, AlignmentError):
            traceback.print_exc()
            return _failed(unexpected_failure(error, None))
        assert isinstance(known, AlignmentError)
        return _failed(_run_failed(known, None))
    return EXIT_COMPLETED


def _check(data: Path, columns: str | None, on_bad_row: OnBadRow) -> int:
    from alignment_core.datasets.preflight import check_preferences

    try:
        report = check_preferences(data, _columns(columns), on_bad_row)
    except (AlignmentError, OSError) as error:
        found = disk_error_of(error) or error
        if not isinstance(found, AlignmentError):
            raise
        return _failed(_run_failed(found, None))
    print(report.model_dump_json(), flush=True)  # noqa: T201
    return EXIT_COMPLETED if report.is_usable else EXIT_UNUSABLE


def _check_lora(file: Path) -> int:
    from alignment_core.families.lora_file import read_lora, report_of

    try:
        report = report_of(read_lora(file))
    except AlignmentError as error:
        return _failed(_run_failed(error, None))
    print(report.model_dump_json(), flush=True)  # noqa: T201
    return EXIT_COMPLETED


def _model(source: str) -> int:
    from alignment_core.load.read_model import ModelFiles, read_model

    silence_progress_bars()
    try:
        report = read_model(TypeAdapter[ModelFiles](ModelFiles).validate_json(source))
    except ValidationError as error:
        return _failed(RunFailed(code="source_invalid", message=str(error), category="user", retryable=False))
    except AlignmentError as error:
        return _failed(_run_failed(error, None))
    print(report.model_dump_json(), flush=True)  # noqa: T201
    return EXIT_COMPLETED


def _print(event: Event) -> None:
    if os.environ.get("RANK", "0") == "0":  # set by torchrun and accelerate launch; one process speaks
        print(event_to_json(event), flush=True)  # noqa: T201


def _latest_step(workdir: Path) -> int | None:
    from alignment_core import checkpoints

    found = checkpoints.latest(workdir / "checkpoints")
    try:
        return checkpoints.read_manifest(found).step if found else None
    except CheckpointError:
        return None


if __name__ == "__main__":
    sys.exit(main())
