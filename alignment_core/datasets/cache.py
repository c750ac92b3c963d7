"""A cache of tensors by content: VAE posteriors and text embeddings are computed once.

An entry's key is the SHA-256 of its namespace (kind, fingerprint of the encoder, resolution, dtype) and its content (an image's
bytes, a prompt). Entries of one namespace have the same tensors and shapes and are stacked into shards: safetensors
files of some MB with the keys as one more tensor.

A shard is named by the SHA-256 of its own bytes and appears by rename. So a kill in mid-write leaves a temporary file
that nothing reads, two processes that fill one cache cannot disturb each other, and a damaged shard is known by its name:
it is verified before its first use, and removed when it fails, so that its entries are computed again. Where shards lie, and whether
others share them, is `shelf.py`'s. Reading maps shards into memory; the index alone (about 250 bytes an entry) is held in it, and only
while a dataset is prepared.
"""

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from alignment_core.datasets.lookahead import Lookahead
from alignment_core.datasets.shelf import ShardLost, Shelf, Shelves
from alignment_core.errors import AlignmentError

SHARD_BYTES = 32 * 2**20
OPEN_SHARDS = 4096  # 128 GiB of addresses; a batch should not map shards anew at every visit
STALE_SECONDS = 24 * 3600

KEYS = "keys"
TRIES = 100  # to read a shard before another thread gives it back
ShardRow = tuple[int, int]  # shard and row in it
Places = Int[Tensor, "batch 2"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mended:
    """Entries of a shard, made again: their keys, the rows of the shard that they were, and their tensors, stacked."""

    keys: list[bytes]
    rows: list[int]
    tensors: Mapping[str, Tensor]


Mend = Callable[[int], Mended]
"""The entries of the shard with this number that a reader knows of."""


class TensorCache:
    """One namespace of the cache, open for looking up and adding. One process may add; any number may read.

    `lost` names the shards that were damaged, or that the store has no more, and whose entries have to be computed again.
    """

    def __init__(
        self, folder: Path | Shelves, namespace: Mapping[str, str | int], *, shard_bytes: int = SHARD_BYTES
    ) -> None:
        name = "/".join(f"{key}={namespace[key]}" for key in sorted(namespace))
        self._namespace = hashlib.sha256(name.encode()).digest()
        shelves = folder if isinstance(folder, Shelves) else Shelves(folder)
        self._shelf = shelves.of(self._namespace.hex()[:32])
        self._shard_bytes = shard_bytes
        _remove_stale(self._shelf.folder)
        self.lost: list[str] = []
        self._pending: list[dict[str, Tensor]] = []
        self._pending_bytes = 0
        self.look_again()

    def look_again(self) -> None:
        """See what others have added by now; nothing may be pending."""
        assert not self._pending
        self._shards, lost = self._shelf.names()
        self.lost += lost
        self._sound: set[int] = set()
        self._index: dict[bytes, ShardRow] = {}
        for number, shard in enumerate(self._shards):
            self._index.update((key, (number, row)) for row, key in enumerate(self._keys_of(shard)))

    def key(self, content: bytes) -> bytes:
        """The key of an image's bytes or a prompt in UTF-8."""
        return self.key_of(hashlib.sha256(content).digest())

    def key_of(self, digest: bytes) -> bytes:
        """The key of what has this SHA-256."""
        return _key_in(self._namespace, digest)

    @property
    def keys_of_content(self) -> Callable[[bytes], bytes]:
        """`key`, without the index."""
        return partial(_key_of_content, self._namespace)

    def find(self, key: bytes) -> ShardRow | None:
        """Where the entry is, if it is there and undamaged."""
        place = self._index.get(key)
        if place is None or place[0] == len(self._shards) or self._is_sound(place[0]):
            return place
        self._index = {other: where for other, where in self._index.items() if where[0] != place[0]}
        return None

    def add(self, key: bytes, tensors: Mapping[str, Tensor]) -> ShardRow:
        """Keep the tensors of one entry (no batch dimension); they are on disk after the next `flush`."""
        place = (len(self._shards), len(self._pending))
        entry = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
        self._pending.append({KEYS: torch.frombuffer(bytearray(key), dtype=torch.uint8), **entry})
        self._pending_bytes += sum(tensor.numel() * tensor.element_size() for tensor in entry.values())
        self._index[key] = place
        return place

    def flush_if_large(self) -> None:
        """Write a shard when enough has come together for one."""
        if self._pending_bytes >= self._shard_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what is pending. Raises `AlignmentError` with `DISK_UNAVAILABLE`."""
        if not self._pending:
            return
        tensors = {name: torch.stack([entry[name] for entry in self._pending]) for name in self._pending[0]}
        self._sound.add(len(self._shards))
        self._shards.append(self._shelf.write(save(tensors), save({KEYS: tensors[KEYS]})))
        self._pending, self._pending_bytes = [], 0

    def reader(self, mend: Mend | None = None) -> "ShardReader":
        """Flush, and go on reading without the index; `mend` is asked for what is in a shard that is lost meanwhile."""
        self.flush()
        return ShardReader(self._shelf, self._shards, mend)

    def _is_sound(self, number: int) -> bool:
        if number in self._sound:
            return True
        try:
            self._shelf.path(self._shards[number])
        except ShardLost:
            self._lose(self._shards[number])
            return False
        self._sound.add(number)
        return True

    def _keys_of(self, shard: str) -> list[bytes]:
        """The keys of a shard; none when it is damaged, so that its entries are computed again."""
        try:
            with safe_open(self._shelf.file_of_keys(shard), framework="pt") as file:
                keys = file.get_tensor(KEYS).numpy()
        except (OSError, SafetensorError):
            self._lose(shard)
            return []
        return [row.tobytes() for row in keys]

    def _lose(self, shard: str) -> None:
        self._shelf.discard(shard)
        self.lost.append(shard)


class ShardReader:
    """Reads entries by place, from shards mapped into memory. Any thread may read: batches are made ahead beside a validation."""

    def __init__(self, shelf: Shelf, shards: Sequence[str], mend: Mend | None = None) -> None:
        self._shelf, self._shards, self._mend = shelf, list(shards), mend
        self._open: OrderedDict[int, dict[str, Tensor]] = OrderedDict()
        self._moved: dict[int, Tensor] = {}  # where the rows of a mended shard are now
        self._ahead = Lookahead(shelf)
        self._lock = threading.Lock()

    def read(self, places: Places) -> dict[str, Tensor]:
        """The entries at `places`, stacked in that order; fresh memory, which the caller may change.

        Raises `AlignmentError("cache_lost")` when a shard was removed after the dataset was prepared, and cannot be made again.
        """
        assert len(places), "nothing was asked for"
        with self._lock:
            return self._read(places)

    def _read(self, places: Places) -> dict[str, Tensor]:
        result: dict[str, Tensor] = {}
        for number in places[:, 0].unique().tolist():
            here = places[:, 0] == number
            for name, values in self._tensors(number).items():
                stacked = result.setdefault(name, values.new_empty(len(places), *values.shape[1:]))
                stacked[here] = values[self._rows(number, places[here, 1])]
            self._ahead.read(self._shards[number])
        return result

    @property
    def is_bounded(self) -> bool:
        """Whether shards leave the disk while they are read."""
        return self._shelf.is_bounded

    def foresee(self, places: Places) -> None:
        """These are read next, after those foreseen before: where shards leave the disk, theirs are fetched meanwhile."""
        if self.is_bounded:
            with self._lock:
                self._ahead.foresee([self._shards[number] for number in places[:, 0].unique().tolist()])

    def _rows(self, number: int, rows: Tensor) -> Tensor:
        return self._moved[number][rows] if number in self._moved else rows

    def _tensors(self, number: int) -> dict[str, Tensor]:
        if self._shelf.is_bounded:
            self._use_no_more_than_is_held(number)
        if number not in self._open:
            self._open[number] = self._mapped(number)
            if len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]

    def _use_no_more_than_is_held(self, number: int) -> None:
        """A map keeps on the disk what was removed from it."""
        for other in [other for other in self._open if self._shelf.has_given_back(self._shards[other])]:
            del self._open[other]
        if number in self._open:
            self._shelf.touch(self._shards[number])

    def _mapped(self, number: int) -> dict[str, Tensor]:
        mended = False
        for _ in range(TRIES):
            shard = self._shards[number]
            try:
                with safe_open(self._shelf.path(shard), framework="pt") as file:
                    return {name: file.get_tensor(name) for name in file.keys() if name != KEYS}  # noqa: SIM118
            except FileNotFoundError:  # it was sent on or given back between the two
                continue
            except (OSError, SafetensorError, ShardLost) as error:
                if self._mend is None or mended:
                    raise cache_lost(f"{shard}.safetensors", str(error)) from error
                self._make_again(number, self._mend, error)
                mended = True
        raise cache_lost(f"{self._shards[number]}.safetensors", "others need all of the disk")

    def _make_again(self, number: int, mend: Mend, lost: Exception) -> None:
        """A shard of the entries that are known, in the order that they had: of the same bytes, if those are all."""
        shard = self._shards[number]
        try:
            made = mend(number)
        except (AlignmentError, OSError) as error:
            raise cache_lost(f"{shard}.safetensors", f"{lost}; and its entries cannot be made: {error}") from error
        log.warning("shard %s was lost (%s); its %d entries were encoded again", shard, lost, len(made.keys))
        self._shelf.mended.append(shard)
        order = sorted(range(len(made.rows)), key=lambda index: made.rows[index])
        keys = torch.frombuffer(bytearray(b"".join(made.keys[index] for index in order)), dtype=torch.uint8)
        tensors = {KEYS: keys.reshape(len(order), -1), **{name: value[order] for name, value in made.tensors.items()}}
        moved = torch.zeros(1 + max(made.rows), dtype=torch.int64)
        moved[[made.rows[index] for index in order]] = torch.arange(len(order))
        self._moved[number] = moved
        self._shelf.discard(shard)
        self._shards[number] = self._shelf.write(save(tensors), save({KEYS: tensors[KEYS]}))


def _key_in(namespace: bytes, digest: bytes) -> bytes:
    return hashlib.sha256(namespace + digest).digest()


def _key_of_content(namespace: bytes, content: bytes) -> bytes:
    return _key_in(namespace, hashlib.sha256(content).digest())


def cache_lost(name: str, reason: str) -> AlignmentError:
    """What is said when a file of the cache went away under a run."""
    return AlignmentError(
        "cache_lost",
        f"the cache file {name} is gone or damaged: {reason}",
        category="system",
        retryable=True,
        hint="Run again: what is missing will be computed anew.",
    )


def _remove_stale(folder: Path) -> None:
    """Temporary files of processes that were killed; younger ones may belong to one that is writing."""
    for path in folder.glob("*.tmp"):
        try:
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()
        except FileNotFoundError:
            continue
