"""Whether an error means that a disk is full, read-only or broken, whoever of the many libraries that write raised it."""

import errno
import os
from collections.abc import Iterator

from alignment_core.errors import DISK_UNAVAILABLE, AlignmentError

WORDS = {
    errno.ENOSPC: "is full",
    errno.EDQUOT: "is full: a quota is used up",
    errno.EROFS: "is read-only",
    errno.EIO: "has a fault of its own",
}


def disk_error_of(error: BaseException) -> AlignmentError | None:
    """The error as a run should tell it, or None when no disk is to blame.

    Safetensors raises errors of its own that have the system's number or words in their text alone.
    """
    for number in WORDS:
        if any(_means(one, number) for one in _chain(error)):
            return AlignmentError(
                DISK_UNAVAILABLE,
                f"a disk that the run writes to or reads from {WORDS[number]}",
                category="capacity",
                retryable=True,
                hint="Make room, or have the disk looked at; the run goes on from its last checkpoint.",
            )
    return None


def _means(error: BaseException, number: int) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == number
    text = str(error)
    return f"os error {number})" in text or os.strerror(number) in text


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
