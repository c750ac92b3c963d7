"""The sweep: finds jobs whose worker was lost, messages that were lost, and work folders that nobody needs.

Every worker sweeps, from a thread of its own, so it happens while the worker runs a job, and without a beat process
that could be missing. Each part is a conditional UPDATE: any number of workers may sweep at once.
"""

import threading
import time
from datetime import timedelta
from pathlib import Path

import structlog

from service.store import (
    audit_lists,
    counts,
    datasets,
    deliveries,
    exports,
    idempotency,
    leases,
    orphans,
    pushes,
    retention,
    sessions,
    sweeps,
    uploads,
    waiting,
)
from service.store.kinds import KINDS
from service.store.removals import remove_due
from worker import inputs
from worker.encoded import remove_unused_encodings
from worker.parts import WorkerParts
from worker.shards import remove_deleted_shards

RING_AT_ONCE = 5  # so many idle workers are woken; each goes on until nothing waits
KEEP_IDEMPOTENCY_KEYS_SECONDS = 24 * 3600.0  # a client that repeats a request a day later means a new one
LOOK_FOR_UNUSED_EVERY_SECONDS = 6 * 3600.0  # every object of every data set is listed for it

log = structlog.get_logger()


def sweep(parts: WorkerParts) -> None:
    """Put lost jobs and data sets back into the queue, and ring for what waits: a message may be lost with its worker.

    `parts.ring` sends nothing while the broker has a message for everything that waits, so sweeps never pile them up.
    """
    settings = parts.settings
    swept = leases.requeue_lost(parts.store, settings.max_attempts)
    parts.telemetry.found_lost(len(swept.lost))
    parts.traces.found_lost(swept.lost)
    for job_id in swept.requeued:
        log.warning("lost_job_queued_again", job_id=job_id)
    for job_id in swept.ended:
        log.warning("lost_job_ended", job_id=job_id)
    datasets.sweep(
        parts.store, max_attempts=settings.max_attempts, upload_timeout_seconds=settings.upload_timeout_seconds
    )
    uploads.forget_expired(parts.store)
    exports.sweep(parts.store, settings.max_attempts)
    pushes.sweep(parts.store, settings.max_attempts)
    sweeps.feed_all(parts.store, parts.ring)
    for classes in [[one] for one in settings.classes] or [[]]:  # each has workers of its own to wake
        for job_id in waiting.next_jobs(parts.store, RING_AT_ONCE, classes):
            parts.ring(job_id)
    for dataset_id in waiting.next_datasets(parts.store, RING_AT_ONCE):
        parts.ring_dataset(dataset_id)
    for export_id in waiting.next_exports(parts.store, RING_AT_ONCE):
        parts.ring_dataset(export_id)
    for push_id in pushes.next_pushes(parts.store, RING_AT_ONCE):
        parts.ring_dataset(push_id)
    idempotency.forget_old(parts.store, KEEP_IDEMPOTENCY_KEYS_SECONDS)
    audit_lists.forget_old(parts.store, settings.audit_days)
    deliveries.forget_old(parts.store, settings.webhooks_log_days)
    sessions.forget_ended(parts.store, settings.session_idle)
    counts.add_up(parts.store)


def start_sweeping(parts: WorkerParts) -> threading.Thread:
    """Sweep now and every `sweep_every_seconds`, from a thread, until the worker shuts down; clean up once before."""
    thread = threading.Thread(target=_sweep_until_shutdown, args=(parts,), name="sweep", daemon=True)
    thread.start()
    # beside it: a store that is away is waited for, and lost jobs must not wait with it
    threading.Thread(target=_remove_until_shutdown, args=(parts,), name="remove", daemon=True).start()
    return thread


def remove_deleted(parts: WorkerParts) -> None:
    """Remove what was deleted: objects that have not left the store yet, and what this machine keeps of data sets and models."""
    remove_due(parts.store, parts.objects)
    inputs.remove_deleted_uploads(parts)
    inputs.remove_unused_models(parts)
    remove_deleted_shards(parts)


class Cleaning:
    """What is done now and then: policies are looked at, and where the operator wants it the whole store."""

    def __init__(self, parts: WorkerParts) -> None:
        self._parts = parts
        self.retention_at = self.encodings_at = time.monotonic()
        # a worker that is started again and again does not list the store each time
        self.orphans_at = time.monotonic() + (parts.settings.orphans_every_hours or 0.0) * 3600

    def __call__(self) -> None:
        settings = self._parts.settings
        if time.monotonic() >= self.retention_at:
            self.retention_at = time.monotonic() + settings.retention_every_seconds
            retention.sweep(self._parts.store)
        if time.monotonic() >= self.encodings_at:
            self.encodings_at = time.monotonic() + LOOK_FOR_UNUSED_EVERY_SECONDS
            remove_unused_encodings(self._parts)
        if settings.orphans_every_hours is not None and time.monotonic() >= self.orphans_at:
            self.orphans_at = time.monotonic() + settings.orphans_every_hours * 3600
            grace = timedelta(hours=settings.orphan_grace_hours)
            count, size_bytes = orphans.remove(self._parts.store, self._parts.objects, grace)
            log.info("orphans_removed", count=count, size_bytes=size_bytes)


def remove_leftovers(parts: WorkerParts) -> None:
    """Remove the work folders of attempts that ended without this worker, such as one that was killed.

    A folder is only removed when its job is no longer held under that attempt, so workers may share `work_dir`.
    """
    for folder in (one for kind in KINDS for one in parts.settings.resolved_work_dir.glob(f"{kind}_*/attempt-*")):
        job_id, number = folder.parent.name, folder.name.removeprefix("attempt-")
        if number.isdigit() and leases.poll(parts.store, job_id, int(number)) == "lost":
            inputs.remove(folder)
    oldest = time.time() - 2 * parts.settings.max_export_seconds
    for folder in parts.settings.resolved_work_dir.glob(".export-*"):
        if folder.stat().st_mtime < oldest:  # no export takes so long
            inputs.remove(folder)
    oldest = time.time() - 2 * parts.settings.max_check_seconds
    for folder in parts.settings.resolved_work_dir.glob(".check-*"):
        if folder.stat().st_mtime < oldest:
            inputs.remove(folder)
    _remove_empty(parts.settings.resolved_work_dir)


def _remove_empty(work_dir: Path) -> None:
    for folder in (one for kind in KINDS for one in work_dir.glob(f"{kind}_*")):
        try:
            folder.rmdir()
        except OSError:
            continue  # an attempt is at work in it


def _remove_until_shutdown(parts: WorkerParts) -> None:
    clean = Cleaning(parts)
    while True:
        try:
            clean()
            remove_deleted(parts)
        except Exception:
            log.exception("removal_failed")
        if parts.shutting_down.wait(parts.settings.sweep_every_seconds):
            return


def _sweep_until_shutdown(parts: WorkerParts) -> None:
    has_cleaned = False
    while True:
        try:
            if not has_cleaned:
                remove_leftovers(parts)
                has_cleaned = True
            sweep(parts)
        except Exception:
            log.exception("sweep_failed")  # whatever it was: without sweeps no lost job would ever run again
        if parts.shutting_down.wait(parts.settings.sweep_every_seconds):
            return
