"""`run`: align a model, and leave when asked."""

import argparse
import os
import sys
import threading
import traceback
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import yaml
from pydantic import ValidationError

from alignment_core.commands.outcome import (
    EXIT_COMPLETED,
    EXIT_STOPPED,
    failed,
    failure_of,
    print_event,
    unexpected_failure,
)
from alignment_core.commands.stopping import should_stop
from alignment_core.disk_errors import disk_error_of
from alignment_core.errors import AlignmentError, CheckpointError
from alignment_core.events import Event, RunFailed, RunStopped
from alignment_core.lean_imports import lean_imports
from alignment_core.lifeline import end_with_launcher, stop_when_asked
from alignment_core.quiet import silence_progress_bars
from alignment_core.spec import JobSpec
from alignment_core.spec.mistakes import in_sentences
from alignment_core.spec.places import Sources
from alignment_core.tracking.points import Subject
from alignment_core.tracking.trackers import Trackers


def run(arguments: argparse.Namespace) -> int:
    spec_path, sources_path, workdir = arguments.spec, arguments.sources, arguments.workdir
    end_with_launcher()
    stop = stop_when_asked(EXIT_STOPPED)
    try:
        spec = _read_spec(spec_path)
        sources = Sources.model_validate_json(sources_path.read_bytes()) if sources_path else Sources()
    except (ValueError, OSError, yaml.YAMLError) as error:
        message = str(error) if isinstance(error, ValueError) else f"{spec_path}: {error}"
        return failed(RunFailed(code="spec_invalid", message=message, category="user", retryable=False))
    is_first = os.environ.get("RANK", "0") == "0"
    trackers = Trackers(arguments.track if is_first else (), Subject(workdir, sources.label))
    code = _followed(arguments, spec, sources, stop, trackers)
    if trackers.is_hung:  # what its client does at the end of a process might hang as well
        sys.stdout.flush()
        os._exit(code)
    return code


def _followed(
    arguments: argparse.Namespace, spec: JobSpec, sources: Sources, stop: threading.Event, trackers: Trackers
) -> int:
    workdir = arguments.workdir
    try:
        return _follow(arguments, spec, sources, stop, trackers)
    except AlignmentError as error:
        _print(trackers.end("failed"))
        return failed(failure_of(disk_error_of(error) or error, _latest_step(workdir)))
    except Exception as error:  # noqa: BLE001  the one place that turns our own mistakes into a failed run
        traceback.print_exc()
        _print(trackers.end("failed"))
        if (without_disk := disk_error_of(error)) is not None:
            return failed(failure_of(without_disk, _latest_step(workdir)))
        return failed(unexpected_failure(error, _latest_step(workdir)))


def _read_spec(path: Path) -> JobSpec:
    written = yaml.safe_load(path.read_bytes())
    try:
        return JobSpec.model_validate(written)
    except ValidationError as error:
        raise ValueError(f"{path} cannot be used:\n{in_sentences(error, written, JobSpec)}") from error


def _print(events: Iterable[Event]) -> None:
    for event in events:
        print_event(event)


def _follow(
    arguments: argparse.Namespace, spec: JobSpec, sources: Sources, stop: threading.Event, trackers: Trackers
) -> int:
    with lean_imports():
        from alignment_core.alignment import align
        from alignment_core.checkpoints import complete
        from alignment_core.training.saving import checkpoint_saved

    silence_progress_bars()
    workdir, announced, known = arguments.workdir, None, 0
    run = align(
        spec,
        workdir,
        sources=sources,
        cache_dir=arguments.cache_dir,
        resume_from=arguments.resume_from,
        check_only=arguments.check_only,
    )
    with closing(run) as events:
        for event in events:
            _print(trackers.hear(event))
            announced = event.step if event.type == "checkpoint_saved" else announced
            known = max(known, announced or 0, (event.type == "run_started" and event.resumed_from_step) or 0)
            if should_stop(stop, event):
                break
        else:
            return EXIT_COMPLETED
    step = _latest_step(workdir)
    for folder in complete(workdir / "checkpoints"):  # closing the run finished or saved some, and could not say so
        saved = checkpoint_saved(folder, workdir)
        if saved.step > known or (saved.step == step and step != announced):
            _print(trackers.hear(saved))
    _print(trackers.end("stopped"))
    print_event(RunStopped(step=step or 0))
    return EXIT_STOPPED


def _latest_step(workdir: Path) -> int | None:
    from alignment_core import checkpoints

    found = checkpoints.latest(workdir / "checkpoints")
    try:
        return checkpoints.read_manifest(found).step if found else None
    except CheckpointError:
        return None
