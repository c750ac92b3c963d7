"""`evaluate`: models against each other, and some of it once more; `draw`: what they draw, for people to judge; `standings`: the table
again, from the scores alone."""

import argparse
import traceback
from collections.abc import Generator
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
    print_report,
    unexpected_failure,
)
from alignment_core.commands.stopping import should_stop
from alignment_core.disk_errors import disk_error_of
from alignment_core.errors import AlignmentError
from alignment_core.events import Event, RunFailed, RunStopped
from alignment_core.lean_imports import lean_imports
from alignment_core.lifeline import end_with_launcher, stop_when_asked
from alignment_core.quiet import silence_progress_bars
from alignment_core.spec import CandidatesSpec, Contest, DrawnAlready, ProofSpec
from alignment_core.spec.mistakes import in_sentences
from alignment_core.spec.places import Sources


def evaluate(arguments: argparse.Namespace) -> int:
    end_with_launcher()
    stop = stop_when_asked(EXIT_STOPPED)
    sources_path = arguments.sources
    try:
        spec = _read_spec(arguments.spec, CandidatesSpec if arguments.command == "draw" else ProofSpec)
        sources = Sources.model_validate_json(sources_path.read_bytes()) if sources_path else Sources()
    except (ValueError, OSError, yaml.YAMLError) as error:
        message = str(error) if isinstance(error, ValueError) else f"{arguments.spec}: {error}"
        return failed(RunFailed(code="spec_invalid", message=message, category="user", retryable=False))
    try:
        with lean_imports():
            run = _run(arguments, spec, sources)
        silence_progress_bars()
        with closing(run) as events:
            for event in events:
                print_event(event)
                if should_stop(stop, event):
                    break
            else:
                return EXIT_COMPLETED
    except AlignmentError as error:
        return failed(failure_of(disk_error_of(error) or error, None))
    except Exception as error:  # noqa: BLE001  the one place that turns our own mistakes into a failed run
        traceback.print_exc()
        if (without_disk := disk_error_of(error)) is not None:
            return failed(failure_of(without_disk, None))
        return failed(unexpected_failure(error, None))
    print_event(RunStopped(step=0))
    return EXIT_STOPPED


def _read_spec(path: Path, kind: type[Contest]) -> Contest:
    written = yaml.safe_load(path.read_bytes())
    try:
        return kind.model_validate(written)
    except ValidationError as error:
        raise ValueError(f"{path} cannot be used:\n{in_sentences(error, written, kind)}") from error


def _run(arguments: argparse.Namespace, spec: Contest, sources: Sources) -> Generator[Event, None, None]:
    if isinstance(spec, CandidatesSpec):
        from alignment_core.prove.candidates import draw_candidates

        there = arguments.already
        already = DrawnAlready() if there is None else DrawnAlready.model_validate_json(there.read_bytes())
        return draw_candidates(spec, arguments.workdir, sources=sources, cache_dir=arguments.cache_dir, already=already)
    if arguments.verify is not None:
        from alignment_core.prove.verification import verify

        return verify(spec, arguments.verify, arguments.prompts, sources=sources, cache_dir=arguments.cache_dir)
    from alignment_core.prove.proof import prove

    return prove(spec, arguments.workdir, sources=sources, cache_dir=arguments.cache_dir)


def standings(scores: Path) -> int:
    with lean_imports():
        from alignment_core.evaluation.score_table import read_table, standings_of

    try:
        report = standings_of(read_table(scores))
    except AlignmentError as error:
        return failed(failure_of(error, None))
    print_report(report)
    return EXIT_COMPLETED
