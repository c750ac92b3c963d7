"""Whether the object store does what Attune asks of it: take an object and give it back."""

import threading
import time

from service.store.objects import ObjectNotFound, ObjectStore
from service.store.unavailable import ObjectsUnavailable

PROBE_KEY = "health/probe"
WRITE_EVERY_SECONDS = 60.0  # whoever asks often costs the store reads, not writes


class StoreProbe:
    """Reads one small object that it wrote itself; writes it anew now and then, and when the read fails.

    A HEAD or a GET of a key that nobody wrote tells nothing: a missing bucket looks like a missing key, and without the
    right to list a missing key looks like a forbidden one.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._written_at = float("-inf")
        self._lock = threading.Lock()

    def __call__(self) -> None:
        """Raises `ObjectsUnavailable` with the reason when the object cannot be written or read."""
        if not (self._is_recent() and self._can_be_read()):
            with self._lock:
                self._objects.put_bytes(PROBE_KEY, b"ok")
                self._read()
                self._written_at = time.monotonic()

    def _is_recent(self) -> bool:
        return time.monotonic() - self._written_at < WRITE_EVERY_SECONDS

    def _can_be_read(self) -> bool:
        try:
            self._read()
        except (ObjectNotFound, ObjectsUnavailable):
            return False
        return True

    def _read(self) -> None:
        for _ in self._objects.open_range(PROBE_KEY):
            pass
