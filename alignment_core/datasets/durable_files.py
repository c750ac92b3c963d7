"""Files that are either whole or not there, whatever happens in the middle of writing one."""

import os
import uuid
from pathlib import Path

from alignment_core.disk_errors import disk_error_of


def write_durably(path: Path, data: bytes) -> None:
    """Write a file that is either whole or not there. Raises `AlignmentError` with `DISK_UNAVAILABLE`."""
    temporary = path.with_name(f"{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if (without_disk := disk_error_of(error)) is None:
            raise
        raise without_disk from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
