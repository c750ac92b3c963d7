"""Where shards of the cache are kept beyond this machine, so that another worker, or the next job, need not encode again.

The library knows folders alone: one that machines share (`FolderStore`), or one through which a process with the keys of an object
store is asked (`asked_store.py`). What comes from a store is believed only when its SHA-256 is the one in its name (`shelf.py`).
"""

import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Protocol

NAMESPACE = re.compile(r"[0-9a-f]{32}")
FILE_NAME = re.compile(r"[0-9a-f]{64}(-[0-9a-f]{64})?\.safetensors")


class NotStored(Exception):  # noqa: N818 - a state of affairs, read as one
    """The store has no such file."""


class ShardStore(Protocol):
    """Files by namespace and name; each is there whole or not at all. Any thread may ask.

    Raises `AlignmentError` with `store_unavailable` when the store cannot answer.
    """

    def names(self, namespace: str) -> set[str]: ...

    def get(self, namespace: str, name: str, path: Path) -> None:
        """Write the file to `path`, whose folder is there. Raises `NotStored`."""
        ...

    def put(self, namespace: str, path: Path) -> None:
        """Keep the file under its own name."""
        ...

    def remove(self, namespace: str, name: str) -> None:
        """Forget the file; none under this name is no error."""
        ...


class FolderStore:
    """A folder that machines share, such as a mounted disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self, namespace: str) -> set[str]:
        return {path.name for path in (self._root / namespace).glob("*.safetensors")}

    def get(self, namespace: str, name: str, path: Path) -> None:
        try:
            shutil.copyfile(self._root / namespace / name, path)
        except FileNotFoundError as error:
            raise NotStored(name) from error

    def put(self, namespace: str, path: Path) -> None:
        folder = self._root / namespace
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f"{uuid.uuid4().hex}.tmp"
        shutil.copyfile(path, temporary)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(folder / path.name)

    def remove(self, namespace: str, name: str) -> None:
        (self._root / namespace / name).unlink(missing_ok=True)
