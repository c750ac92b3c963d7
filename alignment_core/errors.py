"""Errors that a job's owner or operator can act on, each with a stable code.

`ValueError` and pydantic's `ValidationError` stay the errors for what a caller typed; `AlignmentError` is for what goes
wrong in a run that was well formed. The service shows `code`, `message`, `category`, `retryable` and `hint` as they are.
"""

from typing import Literal

Category = Literal["user", "system", "capacity"]

DISK_UNAVAILABLE = "disk_unavailable"
"""Code of a run that failed for want of a disk: nothing is wrong with it, so whoever runs it may wait and try again."""


class AlignmentError(Exception):
    """A run cannot go on. `code` is stable and snake_case; `message` names the field, row or file and what was expected."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        category: Category = "user",
        retryable: bool = False,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.category: Category = category
        self.retryable = retryable
        self.hint = hint


class DataError(AlignmentError):
    """The user's data cannot be used: a row, an image or a file of it is wrong."""


class ModelError(AlignmentError):
    """The user's model cannot be loaded or is of a kind that Attune does not train."""


class CheckpointError(AlignmentError):
    """A checkpoint is incomplete, altered, or belongs to another run."""


class DivergenceError(AlignmentError):
    """The loss became NaN or infinite; the last good checkpoint is kept."""
