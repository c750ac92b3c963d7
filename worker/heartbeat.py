"""The thread that keeps a lease alive and hears what is asked of its holder.

It runs beside whatever the worker does with the job: downloads, the training process, uploads.
"""

import contextvars
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

import structlog
from sqlalchemy.exc import SQLAlchemyError

from service.store.clock import host_seconds

Signal = Literal["go_on", "pause", "discard", "cancel", "lost", "shutdown"]
"""`store.leases.JobSignal`, and `shutdown`: this worker is about to leave."""

TICK_SECONDS = 0.25

log = structlog.get_logger()


class Heartbeat:
    """Renews a lease every `heartbeat_seconds` and looks for requests every `poll_seconds` until its `with` block ends.

    `signal` is the latest request; `on_signal` is called from the thread when it changes, and `on_renewal` with the new
    `lease_ends_at` at every renewal: a reading of the host's clock, counted from before the database was asked, so the lease
    ends there no earlier. A lease that could not be renewed for its whole length counts as lost, since by then another
    worker may hold it.
    """

    def __init__(
        self,
        renew: Callable[[], Signal],
        poll: Callable[[], Signal],
        *,
        lease_seconds: float,
        heartbeat_seconds: float,
        poll_seconds: float,
        shutting_down: threading.Event,
        claimed_at: float | None = None,
    ) -> None:
        self.signal: Signal = "go_on"
        self.lease_ends_at = (host_seconds() if claimed_at is None else claimed_at) + lease_seconds
        self._renew, self._poll = renew, poll
        self._lease_seconds, self._heartbeat_seconds, self._poll_seconds = (
            lease_seconds,
            heartbeat_seconds,
            poll_seconds,
        )
        self._shutting_down = shutting_down
        self._listener: Callable[[Signal], None] | None = None
        self._on_renewal: Callable[[float], None] = lambda _: None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        context = contextvars.copy_context()  # with the job_id that is bound to the log
        self._thread = threading.Thread(target=context.run, args=(self._beat,), name="heartbeat", daemon=True)

    def listen(self, on_signal: Callable[[Signal], None], on_renewal: Callable[[float], None] = lambda _: None) -> None:
        """Call `on_signal` at every change from now on, and at once when something was asked before."""
        with self._lock:
            self._listener, self._on_renewal = on_signal, on_renewal
            on_renewal(self.lease_ends_at)
            if self.signal != "go_on":
                on_signal(self.signal)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        renewed_at = polled_at = self.lease_ends_at - self._lease_seconds  # the claim has just set the lease
        while not self._ended.wait(min(TICK_SECONDS, self._poll_seconds, self._heartbeat_seconds / 2)):
            now = host_seconds()
            if self._shutting_down.is_set() and self.signal == "go_on":
                self._hear("shutdown")
            try:
                if now - renewed_at >= self._heartbeat_seconds:
                    self._renewed(self._renew(), now)
                    renewed_at = polled_at = now
                elif now - polled_at >= self._poll_seconds:
                    self._hear(self._poll())
                    polled_at = now
            except SQLAlchemyError as error:
                log.warning("heartbeat_failed", error=type(error).__name__)
                if now - renewed_at >= self._lease_seconds:
                    self._hear("lost")

    def _renewed(self, answer: Signal, asked_at: float) -> None:
        if answer != "lost":
            with self._lock:
                self.lease_ends_at = asked_at + self._lease_seconds
                self._on_renewal(self.lease_ends_at)
        self._hear(answer)

    def _hear(self, signal: Signal) -> None:
        """A request is never withdrawn: `lost` comes after everything, and a cancel after a pause or a shutdown."""
        with self._lock:
            if _RANK[signal] <= _RANK[self.signal]:
                return
            self.signal = signal
            log.info("job_signal", signal=signal)
            if self._listener is not None:
                self._listener(signal)


_RANK: dict[Signal, int] = {"go_on": 0, "shutdown": 1, "pause": 2, "discard": 3, "cancel": 4, "lost": 5}
