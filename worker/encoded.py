"""What the object store holds of data sets, encoded: what no job has used for long goes, since it can be encoded again.

Each namespace below a data set is of one encoder, resolution and transform. A run that opens it puts a mark, an empty object whose time is the
use. Nothing is taken from a data set that a job needs that has not ended.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import structlog

from service.store import datasets, deletion, keys
from service.store.objects import ObjectInfo
from worker.parts import WorkerParts

log = structlog.get_logger()


def unused(last_used: Mapping[str, datetime], now: datetime, keep_days: float, *, has_live_jobs: bool) -> list[str]:
    """The namespaces that nobody has used for `keep_days`; none of a data set that a job still needs."""
    if has_live_jobs:
        return []
    oldest = now - timedelta(days=keep_days)
    return sorted(name for name, used_at in last_used.items() if used_at < oldest)


def last_uses(encoded: Iterable[ObjectInfo], prefix: str, marks: Iterable[ObjectInfo]) -> dict[str, datetime]:
    """When each namespace below `prefix` was used: by its newest object, or by its mark if that is newer."""
    found: dict[str, datetime] = {}
    for info in encoded:
        name = info.key.removeprefix(prefix).partition("/")[0]
        found[name] = max(info.modified_at, found.get(name, info.modified_at))
    for mark in marks:
        name = mark.key.rpartition("/")[2]
        if name in found:
            found[name] = max(mark.modified_at, found[name])
    return found


def remove_unused_encodings(parts: WorkerParts) -> None:
    """Remove namespaces that are unused from every data set, and note what is left."""
    keep_days = parts.settings.encoded_days
    if keep_days is None:
        return
    for project_id, dataset_id in datasets.with_encodings(parts.store):
        prefix = keys.latents_prefix(project_id, dataset_id)
        encoded = list(parts.objects.list(prefix))
        marks = parts.objects.list(keys.uses_prefix(project_id, dataset_id))
        times = last_uses(encoded, prefix, marks)
        is_live = deletion.has_live_jobs(parts.store, project_id, dataset_id)
        gone = unused(times, datetime.now(UTC), keep_days, has_live_jobs=is_live)
        if gone:
            _remove(parts, prefix, encoded, gone)
            left = sum(info.size_bytes for info in encoded if not _is_below(info, prefix, gone))
            datasets.encoded(parts.store, dataset_id, left)
            log.info("unused_encodings_removed", dataset_id=dataset_id, namespaces=len(gone))


def _remove(parts: WorkerParts, prefix: str, encoded: Sequence[ObjectInfo], gone: Sequence[str]) -> None:
    for info in encoded:
        if _is_below(info, prefix, gone):
            parts.objects.delete(info.key)


def _is_below(info: ObjectInfo, prefix: str, namespaces: Sequence[str]) -> bool:
    return info.key.removeprefix(prefix).partition("/")[0] in namespaces
