"""What the check of a data set has made for people to browse, read from the object store by ranges; what was read last is remembered.

An object under such a key never changes, so what is remembered of it stays true; who may see it is looked up before, every time.
"""

import threading
from collections import OrderedDict
from functools import partial

from alignment_core.browsing import BrowsingReader
from service.store.objects import ObjectStore
from service.store.records.uploads import DatasetRecord

REMEMBERED_BYTES = 16 * 2**20
LONGEST_REMEMBERED = 256 * 1024  # bytes of one range


class Browsed:
    """Readers of data sets. A page of twenty pairs is followed by its forty pictures, which need the same parts of the index."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._lock = threading.Lock()
        self._remembered: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()
        self._num_bytes = 0

    def reader(self, dataset: DatasetRecord) -> BrowsingReader | None:
        """None for a data set of which there is nothing to browse."""
        if dataset.browsing_key is None:
            return None
        return BrowsingReader(dataset.browsing_bytes, partial(self._read, dataset.browsing_key))

    def _read(self, key: str, start: int, end: int) -> bytes:
        place = (key, start, end)
        with self._lock:
            if (found := self._remembered.get(place)) is not None:
                self._remembered.move_to_end(place)
                return found
        found = b"".join(self._objects.open_range(key, start, end))
        if len(found) == end - start and len(found) <= LONGEST_REMEMBERED:
            self._remember(place, found)
        return found

    def _remember(self, place: tuple[str, int, int], found: bytes) -> None:
        with self._lock:
            if place in self._remembered:  # somebody else has read it meanwhile
                return
            self._remembered[place] = found
            self._num_bytes += len(found)
            while self._num_bytes > REMEMBERED_BYTES:
                _, oldest = self._remembered.popitem(last=False)
                self._num_bytes -= len(oldest)
