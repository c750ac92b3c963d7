"""Celery's pool of threads, and a nudge that Celery lacks: its event loop hears at once that a task has ended.

With prefetching off, the loop asks the broker for the next message only when it wakes up, and nothing wakes it at the end
of a task: it sleeps up to a second for its own timers. A message for a job that is no longer queued cost 0.36 s so.
"""

from typing import Any

from celery.concurrency.thread import ApplyResult, TaskPool
from kombu.asynchronous import get_event_loop


class NudgingPool(TaskPool):
    """The one inheritance here: Celery takes a pool as a class, and gives it no other word at the end of a task."""

    def on_apply(self, *args: Any, **options: Any) -> ApplyResult:
        result = super().on_apply(*args, **options)
        result.f.add_done_callback(_nudge)
        return result


def _nudge(_: object) -> None:
    if (loop := get_event_loop()) is not None:
        loop.call_soon(_nothing)


def _nothing() -> None:
    """Waking up is all."""
