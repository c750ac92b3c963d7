"""`check-lora` and `model`: what files of weights say, of which none is loaded."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from alignment_core.commands.outcome import EXIT_COMPLETED, failed, failure_of, print_report
from alignment_core.errors import AlignmentError
from alignment_core.events import RunFailed
from alignment_core.lean_imports import lean_imports
from alignment_core.quiet import silence_progress_bars


def check_lora(file: Path) -> int:
    with lean_imports():
        from alignment_core.families.denoiser_file import denoiser_report
        from alignment_core.families.lora_file import read_lora, report_of

    try:
        report = denoiser_report(file) or report_of(read_lora(file))
    except AlignmentError as error:
        return failed(failure_of(error, None))
    print_report(report)
    return EXIT_COMPLETED


def model(source: str) -> int:
    with lean_imports():
        from alignment_core.load.read_model import ModelFiles, read_model

    silence_progress_bars()
    try:
        report = read_model(TypeAdapter[ModelFiles](ModelFiles).validate_json(source))
    except ValidationError as error:
        return failed(RunFailed(code="source_invalid", message=str(error), category="user", retryable=False))
    except AlignmentError as error:
        return failed(failure_of(error, None))
    print_report(report)
    return EXIT_COMPLETED
