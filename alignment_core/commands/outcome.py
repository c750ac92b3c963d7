"""How a command ends: its exit code, and what it says on stdout; one place turns errors into a `run_failed` event."""

import os

from pydantic import BaseModel

from alignment_core.errors import AlignmentError
from alignment_core.events import Event, RunFailed, event_to_json

EXIT_COMPLETED, EXIT_FAILED, EXIT_UNUSABLE, EXIT_STOPPED = 0, 1, 3, 75  # 75 is EX_TEMPFAIL of sysexits.h


def failed(event: RunFailed) -> int:
    print_event(event)
    return EXIT_FAILED


def print_event(event: Event) -> None:
    if os.environ.get("RANK", "0") != "0":  # set by torchrun and accelerate launch; one process speaks
        return
    try:
        print(event_to_json(event), flush=True)  # noqa: T201
    except BrokenPipeError:  # nobody listens any more
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            os._exit(
                EXIT_STOPPED
            )  # who left alone would wait for the others to save with it; so the launcher ends them
        raise


def print_report(report: BaseModel) -> None:
    print(report.model_dump_json(), flush=True)  # noqa: T201


def failure_of(error: AlignmentError, step: int | None) -> RunFailed:
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
            hint="Lower training.batch_size and raise gradient_accumulation_steps, set training.micro_batch to auto, or set "
            "gradient_checkpointing.",
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
