"""A disk cache of tensors by content: VAE posteriors and text embeddings are computed once.

An entry's key is the SHA-256 of its namespace (kind, fingerprint of the encoder, resolution, dtype) and its content (an image's
bytes, a prompt). Entries of one namespace have the same tensors and shapes and are stacked into shards: safetensors
files of some MB with the keys as one more tensor.

A shard is named by the SHA-256 of its own bytes and appears by rename. So a kill in mid-write leaves a temporary file
that nothing reads, two processes that fill one cache cannot disturb each other, and a damaged shard is known by its name:
it is verified before its first use, and removed when it fails, so that its entries are computed again. Reading maps shards
into memory; the index alone (about 250 bytes an entry) is held in it, and only while a dataset is prepared.
"""

import hashlib
import os
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from alignment_core.disk_errors import disk_error_of
from alignment_core.errors import AlignmentError

SHARD_BYTES = 32 * 2**20
OPEN_SHARDS = 4096  # 128 GiB of addresses; a batch should not map shards anew at every visit
STALE_SECONDS = 24 * 3600

KEYS = "keys"
ShardRow = tuple[int, int]  # shard and row in it
Places = Int[Tensor, "batch 2"]


class TensorCache:
    """One namespace of the cache, open for looking up and adding. One process may add; any number may read."""

    def __init__(self, folder: Path, namespace: Mapping[str, str | int], *, shard_bytes: int = SHARD_BYTES) -> None:
        name = "/".join(f"{key}={namespace[key]}" for key in sorted(namespace))
        self._namespace = hashlib.sha256(name.encode()).digest()
        self._folder = folder / self._namespace.hex()[:32]
        self._shard_bytes = shard_bytes
        self._folder.mkdir(parents=True, exist_ok=True)
        _remove_stale(self._folder)
        self._shards = sorted(self._folder.glob("*.safetensors"))
        self._verified: set[int] = set()
        self._index: dict[bytes, ShardRow] = {}
        for number, path in enumerate(self._shards):
            self._index.update((key, (number, row)) for row, key in enumerate(_read_keys(path)))
        self._pending: list[dict[str, Tensor]] = []
        self._pending_bytes = 0

    def key(self, content: bytes) -> bytes:
        """The key of an image's bytes or a prompt in UTF-8."""
        return hashlib.sha256(self._namespace + hashlib.sha256(content).digest()).digest()

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
        data = save({name: torch.stack([entry[name] for entry in self._pending]) for name in self._pending[0]})
        path = self._folder / f"{hashlib.sha256(data).hexdigest()}.safetensors"
        write_durably(path, data)
        self._verified.add(len(self._shards))
        self._shards.append(path)
        self._pending, self._pending_bytes = [], 0

    def reader(self) -> "ShardReader":
        """Flush, and go on reading without the index."""
        self.flush()
        return ShardReader(tuple(self._shards))

    def _is_sound(self, number: int) -> bool:
        if number in self._verified:
            return True
        path = self._shards[number]
        try:
            with path.open("rb") as handle:
                sound = hashlib.file_digest(handle, "sha256").hexdigest() == path.stem
        except FileNotFoundError:  # somebody else has cleaned up
            return False
        if sound:
            self._verified.add(number)
        else:
            path.unlink(missing_ok=True)
        return sound


class ShardReader:
    """Reads entries by place, from shards mapped into memory."""

    def __init__(self, shards: Sequence[Path]) -> None:
        self._shards = shards
        self._open: OrderedDict[int, dict[str, Tensor]] = OrderedDict()

    def read(self, places: Places) -> dict[str, Tensor]:
        """The entries at `places`, stacked in that order; fresh memory, which the caller may change.

        Raises `AlignmentError("cache_lost")` when a shard was removed after the dataset was prepared.
        """
        assert len(places), "nothing was asked for"
        result: dict[str, Tensor] = {}
        for number in places[:, 0].unique().tolist():
            here = places[:, 0] == number
            for name, values in self._tensors(number).items():
                stacked = result.setdefault(name, values.new_empty(len(places), *values.shape[1:]))
                stacked[here] = values[places[here, 1]]
        return result

    def _tensors(self, number: int) -> dict[str, Tensor]:
        if number not in self._open:
            self._open[number] = _map_shard(self._shards[number])
            if len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]


def _map_shard(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name != KEYS}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise cache_lost(path, str(error)) from error


def cache_lost(path: Path, reason: str) -> AlignmentError:
    """What is said when a file of the cache went away under a run."""
    return AlignmentError(
        "cache_lost",
        f"the cache file {path.name} is gone or damaged: {reason}",
        category="system",
        retryable=True,
        hint="Run again: what is missing will be computed anew.",
    )


def _read_keys(path: Path) -> list[bytes]:
    """The keys of a shard; none when it is damaged, so that its entries are computed again."""
    try:
        with safe_open(path, framework="pt") as file:
            keys = file.get_tensor(KEYS).numpy()
    except (OSError, SafetensorError):
        path.unlink(missing_ok=True)
        return []
    return [row.tobytes() for row in keys]


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


def _remove_stale(folder: Path) -> None:
    """Temporary files of processes that were killed; younger ones may belong to one that is writing."""
    for path in folder.glob("*.tmp"):
        try:
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()
        except FileNotFoundError:
            continue
