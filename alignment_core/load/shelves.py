"""Where the shards of a run lie, and how much of the disk its images may take, as its sources say."""

from pathlib import Path
from typing import assert_never

from alignment_core.datasets.asked_store import AskedStore
from alignment_core.datasets.shard_store import FolderStore
from alignment_core.datasets.shelf import Disk, Shelves
from alignment_core.ranks import Ranks
from alignment_core.spec.places import AskedShards, FolderShards, Sources


def shelves_of(sources: Sources, ranks: Ranks) -> Shelves | None:
    """Shelves before a store that others share; None without one, and the cache is a folder of this machine."""
    match sources.shards:
        case None:
            return None
        case FolderShards(folder=folder, store=store, disk_bytes=limit):
            return Shelves(Path(folder), FolderStore(Path(store)), _share(limit, ranks))
        case AskedShards(folder=folder, exchange=exchange, disk_bytes=limit):
            return Shelves(Path(folder), AskedStore(Path(exchange), Path(folder)), _share(limit, ranks))
        case other:
            assert_never(other)


def images_disk_of(sources: Sources, ranks: Ranks) -> Disk:
    """For images that are copied out of files which are read forwards."""
    return Disk(_share(sources.unpacked_disk_bytes, ranks))


def _share(limit: int | None, ranks: Ranks) -> int | None:
    """Each process counts for itself."""
    return None if limit is None else limit // ranks.count
