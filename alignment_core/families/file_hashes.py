"""SHA-256 of large files, each read for it once as long as the file stays as it is.

Hashing Stable Diffusion 1.5 takes as long as reading it does four times over, and every run of it would.
"""

import contextlib
import hashlib
import json
import os
import time
import uuid
from pathlib import Path

SETTLED_SECONDS = 3.0  # a file younger than this may change once more within one tick of its file system's clock


class FileHashes:
    """What was hashed before is known by the file's place, size, inode and times, of which nobody can set back the last.

    `folder` keeps it for other processes; None keeps it in this one.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._known: dict[str, str] = {}

    def of(self, path: Path) -> bytes:
        """The digest of what the file holds now."""
        state = _state_of(path)
        if (found := self._known.get(state) or self._recalled(state)) is None:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if not _is_settled(path) or _state_of(path) != state:
                return bytes.fromhex(found)
            self._keep(state, found)
        self._known[state] = found
        return bytes.fromhex(found)

    def _recalled(self, state: str) -> str | None:
        if self._folder is None:
            return None
        try:
            found = json.loads((self._folder / _name_of(state)).read_bytes())
            return found["sha256"] if found["state"] == state and len(bytes.fromhex(found["sha256"])) == 32 else None
        except (OSError, ValueError, KeyError, TypeError):
            return None  # not there, or not whole

    def _keep(self, state: str, digest: str) -> None:
        if self._folder is None:
            return
        with contextlib.suppress(OSError):  # a full disk costs the next run its time, and this one nothing
            self._folder.mkdir(parents=True, exist_ok=True)
            partial = self._folder / f"{uuid.uuid4().hex}.tmp"
            partial.write_text(json.dumps({"state": state, "sha256": digest}), encoding="utf-8")
            partial.replace(self._folder / _name_of(state))


def _state_of(path: Path) -> str:
    real, stat = path.resolve(), path.stat()
    return f"{real} {stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def _is_settled(path: Path) -> bool:
    stat = path.stat()
    return time.time() - max(stat.st_mtime, stat.st_ctime) > SETTLED_SECONDS


def _name_of(state: str) -> str:
    return f"{hashlib.sha256(os.fsencode(state)).hexdigest()}.json"
