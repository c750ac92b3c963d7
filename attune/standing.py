"""Where a job stands while its events say nothing: in the queue, about to start, paused."""

import threading
from collections.abc import Callable
from typing import Self

from alignment_core.spec.counted import counted
from attune.client import Client
from attune.errors import AttuneError
from attune.resources.jobs import Job

LOOK_EVERY_SECONDS = 2.0


def standing_of(job: Job) -> str | None:
    """What a job waits for, in a line; None while it runs, or has ended."""
    match job.status:
        case "queued":
            return _place_of(job)
        case "starting":
            return "waiting for the training process to start: it imports torch and loads the model"
        case "pausing" | "cancelling":
            return f"{job.status}: the training process saves its state and leaves"
        case "paused":
            why = f" ({job.error.message})" if job.error else ""
            return f"paused at step {job.progress.step}{why}; waiting for: attune job resume {job.id}"
        case _:
            return None


def _place_of(job: Job) -> str:
    if job.queue is None:  # an older server
        return "queued"
    if job.queue.ahead == 0:
        return "queued: it is next, and waits for a worker"
    return f"queued: number {job.queue.position} in the queue, waiting for {counted(job.queue.ahead, 'job')} to end"


class Lookout:
    """Calls `tell` with where the job stands, at once and whenever that changes, until its `with` block ends.

    It looks from a thread of its own, as a stream of events has nothing to say for hours. `heard` tells it that an event
    came: then the job is at work, and the next look is put off.
    """

    def __init__(self, client: Client, job_id: str, tell: Callable[[str | None], None]) -> None:
        self._client, self._job_id, self._tell = client, job_id, tell
        self._lock = threading.Lock()
        self._num_heard = 0
        self._told: str | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, name="lookout", daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def heard(self, show: Callable[[], None]) -> None:
        """Show an event, undisturbed by what the thread has to tell."""
        with self._lock:
            self._num_heard += 1
            self._told = None
            show()

    def _keep_looking(self) -> None:
        looked_at = 0
        while not self._ended.wait(LOOK_EVERY_SECONDS):
            if self._num_heard == looked_at:
                try:
                    self._look()
                except AttuneError:
                    continue  # whoever reads the events meets the same, and says so
            looked_at = self._num_heard

    def _look(self) -> None:
        num_heard = self._num_heard
        found = standing_of(self._client.get_job(self._job_id))
        with self._lock:
            if num_heard == self._num_heard and found != self._told and not self._ended.is_set():
                self._told = found
                self._tell(found)
