"""Whose turn it is. A message says that something waits and no more; which job or data set comes next, the database says.

So any message will do for any job: one that was sent for a job long gone starts the one that waits, and a worker goes on
until nothing waits, whether or not the broker is there.
"""

from service.store import pushes, sweeps, waiting
from worker.dataset import prepare_dataset
from worker.export import make_export
from worker.parts import WorkerParts
from worker.push import make_push
from worker.run import run_job


def run_queued_jobs(parts: WorkerParts) -> None:
    """Run jobs in the order of the queue, until none is queued or this worker leaves."""
    while not parts.shutting_down.is_set() and (found := waiting.next_jobs(parts.store, classes=parts.serves)):
        run_job(parts, found[0])
        sweeps.feed_all(parts.store, parts.ring)  # its sweep has room for the next


def check_uploaded_datasets(parts: WorkerParts) -> None:
    """Check data sets, one of the owner with the fewest in work first, until none waits or this worker leaves.

    No owner has all checkers at once: another's data set finds one free, however long the checks of the first take.
    """
    most = parts.settings.max_checks_per_project
    while not parts.shutting_down.is_set() and (found := waiting.next_datasets(parts.store, most_per_project=most)):
        prepare_dataset(parts, found[0])


def make_exports(parts: WorkerParts) -> None:
    """Make exports, and then pushes, in the order in which they were asked for, until none waits or this worker leaves.

    One at a time in a process: a whole model fits into memory once, and the other threads go on checking data sets.
    """
    if not parts.exporting.acquire(blocking=False):
        return  # whoever has it goes on until none waits
    try:
        while not parts.shutting_down.is_set() and (found := waiting.next_exports(parts.store)):
            make_export(parts, found[0])
        while not parts.shutting_down.is_set() and (found := pushes.next_pushes(parts.store)):
            make_push(parts, found[0])
    finally:
        parts.exporting.release()
