"""Small things that are known of a data set, beside its shards: whoever shares the store need not find them out again.

What a check found, what images hash to. By a key that says of what state of the data and for which question; believed when the bytes
have the SHA-256 in the name.
"""

import hashlib
import uuid
from pathlib import Path

from alignment_core.datasets.durable_files import write_durably
from alignment_core.datasets.shard_store import NotStored, ShardStore

NAMESPACE = hashlib.sha256(b"notes").hexdigest()[:32]  # of no encoder
KEYS = "keys"


class Notes:
    """Notes in a store that others share, by keys of 64 hexadecimal digits."""

    def __init__(self, folder: Path, store: ShardStore) -> None:
        self._folder, self._store = folder / NAMESPACE, store
        (self._folder / KEYS).mkdir(parents=True, exist_ok=True)

    def recall(self, key: str) -> bytes | None:
        """What was kept under the key; None for nothing, and for what was damaged."""
        for name in sorted(self._store.names(NAMESPACE)):
            if name.startswith(f"{key}-") and (found := self._fetched(name)) is not None:
                return found
        return None

    def keep(self, key: str, content: bytes) -> None:
        path = self._folder / KEYS / f"{key}-{hashlib.sha256(content).hexdigest()}.safetensors"
        write_durably(path, content)
        self._store.put(NAMESPACE, path)
        path.unlink(missing_ok=True)

    def _fetched(self, name: str) -> bytes | None:
        temporary = self._folder / f"{uuid.uuid4().hex}.tmp"
        try:
            self._store.get(NAMESPACE, name, temporary)
            content = temporary.read_bytes()
        except NotStored:
            return None
        finally:
            temporary.unlink(missing_ok=True)
        return content if name.endswith(f"-{hashlib.sha256(content).hexdigest()}.safetensors") else None
