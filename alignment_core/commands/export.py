"""`export`: a checkpoint as another tool reads it."""

import argparse
import traceback

from pydantic import ValidationError

from alignment_core.commands.outcome import EXIT_COMPLETED, failed, failure_of, print_report, unexpected_failure
from alignment_core.disk_errors import disk_error_of
from alignment_core.errors import AlignmentError
from alignment_core.events import RunFailed
from alignment_core.lean_imports import lean_imports
from alignment_core.quiet import silence_progress_bars
from alignment_core.reports import EvaluationReport
from alignment_core.spec.places import Sources


def export(arguments: argparse.Namespace) -> int:
    with lean_imports():
        from alignment_core.exports.export import export as write

    silence_progress_bars()
    try:
        sources = Sources.model_validate_json(arguments.sources.read_bytes()) if arguments.sources else Sources()
        report = EvaluationReport.model_validate_json(arguments.report.read_bytes()) if arguments.report else None
    except (ValidationError, OSError) as error:
        return failed(RunFailed(code="export_invalid", message=str(error), category="user", retryable=False))
    try:
        out, form, cache_dir = arguments.out, arguments.format, arguments.cache_dir
        for event in write(arguments.checkpoint, out, form, sources=sources, report=report, cache_dir=cache_dir):
            print_report(event)
    except Exception as error:  # noqa: BLE001  as for a run
        if (known := disk_error_of(error) or error) is error and not isinstance(error, AlignmentError):
            traceback.print_exc()
            return failed(unexpected_failure(error, None))
        assert isinstance(known, AlignmentError)
        return failed(failure_of(known, None))
    return EXIT_COMPLETED
