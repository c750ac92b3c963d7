"""The shards of a run on this machine's disk, and those of a store behind it that the run shares with others.

Without a store a shelf is a folder. With one, each new shard is sent there in the background, and a shard that is not here is
fetched when it is wanted; what the store has as well may leave the disk, the least recently used first, where a run may have only so
much of it. A shard that the store has not confirmed lies in `unsent` and stays, also over a kill: the next run sends it.

Beside each shard the store has a small file with its keys, so that a run knows what there is without reading it all. It is put
after its shard, as the mark that the shard is there, and is named by both hashes.

Nothing is read before its bytes have the hash in its name, whether it was here or came from the store.
"""

import hashlib
import logging
import threading
import uuid
from collections import OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from alignment_core.datasets.durable_files import write_durably
from alignment_core.datasets.notes import Notes
from alignment_core.datasets.shard_store import NotStored, ShardStore
from alignment_core.errors import AlignmentError

UNSENT, MARKS = "unsent", "keys"
THREADS = 8  # of a shelf, to and from the store
BYTES_ON_THE_WAY = 256 * 2**20  # of shards that wait to be sent; the encoder waits then

log = logging.getLogger(__name__)


class ShardLost(Exception):  # noqa: N818 - a state of affairs, read as one
    """A shard is gone or damaged, here and in the store."""


class Disk:
    """How much of what can be had again may lie on this machine; the shelves of a run share one."""

    def __init__(self, limit_bytes: int | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.bytes_held = 0
        self._held: OrderedDict[Path, int] = OrderedDict()
        self._own: set[Path] = set()
        self._own_bytes = 0
        self._lock = threading.Lock()

    def hold(self, path: Path) -> bool:
        """It is used just now, and what was not used for longest goes for it; False when it has gone itself meanwhile."""
        if self.limit_bytes is None:
            return True
        with self._lock:
            self.bytes_held -= self._held.pop(path, 0)
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                return False
            self._held[path] = size
            self.bytes_held += size
            while self.bytes_held > self.limit_bytes and len(self._held) > 1:
                oldest, its_size = self._held.popitem(last=False)
                self.bytes_held -= its_size
                oldest.unlink(missing_ok=True)
            return True

    def holds(self, path: Path) -> bool:
        """Whether it is counted, and has its turn among what may go."""
        return path in self._held

    def has_room_among_own(self, path: Path, size_bytes: int) -> bool:
        """Whether it may lie there with all that had room before, the run's own; what others left does not count, since it can go."""
        if self.limit_bytes is None:
            return True
        with self._lock:
            if path in self._own:
                return True
            if self._own_bytes + size_bytes > self.limit_bytes:
                return False
            self._own.add(path)
            self._own_bytes += size_bytes
            return True

    def has_given_back(self, path: Path) -> bool:
        """Whether a map of the file would keep a place on the disk that is no longer counted."""
        return self.limit_bytes is not None and path not in self._held


class Shelves:
    """Where a run's shards are: a folder of this machine and, perhaps, a store that others read too. A shelf a namespace."""

    def __init__(self, folder: Path, store: ShardStore | None = None, disk_bytes: int | None = None) -> None:
        self.disk = Disk(disk_bytes if store is not None else None)
        self._folder, self._store = folder, store
        self._shelves: dict[str, Shelf] = {}
        self.notes = None if store is None else Notes(folder, store)
        self._mended: deque[str] = deque()

    def of(self, namespace: str) -> "Shelf":
        if namespace not in self._shelves:
            self._shelves[namespace] = Shelf(self._folder / namespace, namespace, self._store, self.disk, self._mended)
        return self._shelves[namespace]

    def take_mended(self) -> list[str]:
        """Names of the shards that were made again since this was asked last; batches are read in a thread meanwhile."""
        return [self._mended.popleft() for _ in range(len(self._mended))]

    def settle(self) -> None:
        """Wait until everything was sent, or could not be."""
        for shelf in self._shelves.values():
            shelf.settle()


class Shelf:
    """The shards of one namespace, each named by the SHA-256 of its bytes. Any thread may ask for one."""

    def __init__(self, folder: Path, namespace: str, store: ShardStore | None, disk: Disk, mended: deque[str]) -> None:
        self.folder, self.mended = folder, mended
        self._namespace, self._store, self._disk = namespace, store, disk
        self._verified: set[str] = set()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="shelf")
        self._coming: dict[str, Future[None]] = {}
        self._lock = threading.Lock()
        self._largest = 0  # of the shards that came from the store
        self._sending: deque[tuple[str, int, Future[None]]] = deque()
        for part in (folder, *((folder / UNSENT, folder / MARKS) if store is not None else ())):
            part.mkdir(parents=True, exist_ok=True)

    def write(self, data: bytes, keys: bytes) -> str:
        """Put a shard, and the file of its keys, onto the disk and on their way to the store; returns the shard's name."""
        name = hashlib.sha256(data).hexdigest()
        self._verified.add(name)
        if self._store is None:
            write_durably(self._kept(name), data)
            return name
        write_durably(self.folder / MARKS / f"{name}-{hashlib.sha256(keys).hexdigest()}.safetensors", keys)
        write_durably(self._unsent(name), data)
        self._send(name, len(data))
        return name

    def names(self) -> tuple[list[str], list[str]]:
        """Names of the shards that can be had, and of those that the store has lost; an earlier run's are sent that it has not."""
        unsent = {path.stem for path in (self.folder / UNSENT).glob("*.safetensors")}
        stored = set() if self._store is None else self._store.names(self._namespace)
        here = {path.stem for path in self.folder.glob("*.safetensors")}
        if self._store is None:
            return sorted(here), []
        marks = {mark.partition("-")[0]: mark for mark in stored if "-" in mark}
        whole = {name for name in marks if f"{name}.safetensors" in stored}
        for name in sorted((unsent | here) - whole - {sent for sent, _, _ in self._sending}):
            with suppress(FileNotFoundError):  # another process sends it just now
                if name not in unsent:  # the store has lost it, and this machine has not
                    self._kept(name).rename(self._unsent(name))
                self._send(name, self._unsent(name).stat().st_size)
        elsewhere = sorted(marks.keys() - unsent - here)
        known = set(self._threads.map(self._with_keys, [marks[name] for name in elsewhere if name in whole]))
        for name in sorted(here & whole):
            self._disk.hold(self._kept(name))
        lost = [name for name in elsewhere if name not in known]
        for name in lost:
            self._store.remove(self._namespace, marks[name])
        return sorted(unsent | here | {name for name in known if name is not None}), lost

    def file_of_keys(self, name: str) -> Path:
        """A file that has the keys of the shard: with its tensors, or alone."""
        marks = sorted((self.folder / MARKS).glob(f"{name}-*.safetensors"))
        return marks[0] if marks else self._kept(name)

    def path(self, name: str) -> Path:
        """The shard on this disk, with the bytes that it had; fetched if need be. Raises `ShardLost`."""
        kept, unsent = self._kept(name), self._unsent(name)
        while True:  # another thread may send it on or give it back at any moment
            if kept.exists() and self._is_sound(kept):
                if self._disk.hold(kept):
                    return kept
            elif unsent.exists() and self._is_sound(unsent):
                return unsent
            elif self._store is None:
                raise ShardLost(f"{name}: it is gone or damaged")
            elif (coming := self._coming.pop(name, None)) is not None:
                coming.result()
            else:
                self._bring(name)

    def fetch_ahead(self, name: str) -> None:
        """Have it on its way, unless it is here; what goes wrong is `path`'s to find again."""
        with self._lock:
            coming = self._coming.get(name)  # one that has come may have had to leave again
            if (coming is None or coming.done()) and not self._kept(name).exists() and not self._unsent(name).exists():
                self._coming[name] = self._threads.submit(self._bring, name)

    @property
    def room_ahead(self) -> int:
        """How many shards may lie here before they are read: a quarter of the disk, as prompts and images each look ahead."""
        limit = self._disk.limit_bytes
        return 0 if limit is None else max(1, limit // (4 * self._largest)) if self._largest else 1

    @property
    def is_bounded(self) -> bool:
        """Whether shards leave the disk while a run reads them."""
        return self._disk.limit_bytes is not None

    def has_given_back(self, name: str) -> bool:
        """Whether the shard had to leave the disk since it was last asked for."""
        return self._disk.has_given_back(self._kept(name)) and not self._unsent(name).exists()

    def touch(self, name: str) -> None:
        """It is used where it is mapped."""
        if self._kept(name).exists():
            self._disk.hold(self._kept(name))

    def discard(self, name: str) -> None:
        """Nobody should read the shard again."""
        self._kept(name).unlink(missing_ok=True)
        self._unsent(name).unlink(missing_ok=True)
        if self._store is None:
            return
        for mark in (self.folder / MARKS).glob(f"{name}-*.safetensors"):
            self._store.remove(self._namespace, mark.name)
            mark.unlink(missing_ok=True)
        self._store.remove(self._namespace, f"{name}.safetensors")

    def settle(self) -> None:
        while self._sending:
            self._sending.popleft()[2].result()

    def _kept(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _unsent(self, name: str) -> Path:
        return self.folder / UNSENT / f"{name}.safetensors"

    def _is_sound(self, path: Path) -> bool:
        """A file that is not is removed."""
        if path.stem in self._verified:
            return True
        if not has_bytes(path, path.stem):
            path.unlink(missing_ok=True)
            return False
        self._verified.add(path.stem)
        return True

    def _send(self, name: str, size: int) -> None:
        while self._sending and sum(size for _, size, _ in self._sending) > BYTES_ON_THE_WAY:
            self._sending.popleft()[2].result()
        while self._sending and self._sending[0][2].done():
            self._sending.popleft()
        self._sending.append((name, size, self._threads.submit(self._put, name)))

    def _put(self, name: str) -> None:
        """A store that is away keeps nobody from training: the shard stays here, and a later run sends it."""
        assert self._store is not None
        path = self._unsent(name)
        try:
            self._store.put(self._namespace, path)
            self._store.put(self._namespace, self.file_of_keys(name))
            path.replace(self._kept(name))
            self._disk.hold(self._kept(name))
        except (AlignmentError, OSError) as error:
            if path.exists():  # and was not sent by another process that had found it here
                log.warning("shard %s was not sent and stays on this machine: %s", name, error)

    def _bring(self, name: str) -> None:
        kept = self._kept(name)
        self._fetch(f"{name}.safetensors", kept, name)
        self._verified.add(name)
        with suppress(FileNotFoundError):  # others needed its place already
            self._largest = max(self._largest, kept.stat().st_size)
        self._disk.hold(kept)

    def _with_keys(self, mark: str) -> str | None:
        """The name of the shard whose keys are here now; None when the store has lost or altered them."""
        name, _, sha256 = mark.removesuffix(".safetensors").partition("-")
        target = self.folder / MARKS / mark
        try:
            if not target.exists():
                self._fetch(mark, target, sha256)
        except ShardLost:
            return None
        return name

    def _fetch(self, name: str, target: Path, sha256: str) -> None:
        assert self._store is not None
        temporary = self.folder / f"{uuid.uuid4().hex}.tmp"
        try:
            self._store.get(self._namespace, name, temporary)
            if not has_bytes(temporary, sha256):
                raise ShardLost(f"{name}: the store has other bytes than were put there")
            temporary.replace(target)
        except NotStored as error:
            raise ShardLost(f"{name}: the store has it no more") from error
        finally:
            temporary.unlink(missing_ok=True)


def has_bytes(path: Path, sha256: str) -> bool:
    """Whether the file is there, with these bytes."""
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest() == sha256
    except FileNotFoundError:  # somebody else has cleaned up
        return False
