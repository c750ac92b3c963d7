"""The doorbell: tells the workers that a row waits for them. The one place of the service that speaks to Celery.

A message says that something waits, and the worker that gets it asks the database what; the id in it is for people. So the
broker needs no more messages than there are rows that wait, and one that is there already does for a new row too.
Publishing to a broker that is down blocks for many seconds, so `ring` only notes the id and a thread of this process
publishes it, again and again with growing pauses until the broker answers. A message that is lost all the same (this
process dies) is made up for by the workers' sweep, and one that arrives twice is harmless, since claiming a job is one
conditional UPDATE.
"""

import queue
import threading
from collections.abc import Callable
from typing import NamedTuple

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy.exc import SQLAlchemyError

from service.resource_classes import JOBS_QUEUE

RUN_JOB = "attune.run_job"
PREPARE_DATASET = "attune.prepare_dataset"
DATASETS_QUEUE = "attune.datasets"  # its own, so that a check does not wait behind an hour of training

CONNECT_TIMEOUT_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 30.0
MOST_WAITING = 10_000

log = structlog.get_logger()


Count = Callable[[int], int]
"""How many rows wait for a worker; counting ends at the number it is given."""


Line = tuple[str, Count]
"""A queue of the broker, and how many rows wait for the workers that read it."""


class Message(NamedTuple):
    task: str
    identifier: str


def producer_app(broker_url: str) -> Celery:
    """A Celery app that only sends: JSON, no results, short timeouts and no retries of its own."""
    app = Celery("attune-service", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_default_queue=JOBS_QUEUE,
        task_routes={PREPARE_DATASET: {"queue": DATASETS_QUEUE}},
        broker_connection_timeout=CONNECT_TIMEOUT_SECONDS,
        broker_transport_options={
            "socket_connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "socket_timeout": CONNECT_TIMEOUT_SECONDS,
            "max_retries": 0,
        },
    )
    return app


class Bell:
    """Rings for jobs and data sets without ever making the caller wait; `start` and `close` frame its life."""

    def __init__(
        self,
        broker_url: str,
        *,
        num_jobs: Count,
        num_datasets: Count,
        line_of_job: Callable[[str], Line | None] = lambda _: None,
    ) -> None:
        """`line_of_job` says the line of a job that is in a class with a queue of its own."""
        self._app = producer_app(broker_url)
        self._lines: dict[str, Line] = {
            RUN_JOB: (JOBS_QUEUE, num_jobs),
            PREPARE_DATASET: (DATASETS_QUEUE, num_datasets),
        }
        self._line_of_job = line_of_job
        with self._app.connection_for_write() as connection:
            broken = (*connection.connection_errors, *connection.channel_errors)
        self._broken = (OperationalError, OSError, SQLAlchemyError, *broken)
        self._waiting: queue.Queue[Message | None] = queue.Queue(maxsize=MOST_WAITING)
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._closing.clear()
        self._thread = threading.Thread(target=self._publish_all, name="bell", daemon=True)
        self._thread.start()

    def close(self, timeout_seconds: float = 3.0) -> None:
        """Publish what waits if the broker answers, and leave within `timeout_seconds`."""
        self._closing.set()
        self._note(None)
        if self._thread is not None:
            self._thread.join(timeout_seconds)
        self._app.close()

    def ring(self, job_id: str) -> None:
        """Say that a job is queued. Call it after the commit."""
        self._note(Message(RUN_JOB, job_id))

    def ring_dataset(self, dataset_id: str) -> None:
        """Say that a data set waits to be checked. Call it after the commit."""
        self._note(Message(PREPARE_DATASET, dataset_id))

    def check(self) -> None:
        """Reach the broker now, or raise within a few seconds."""
        with self._app.connection_for_write() as connection:
            connection.default_channel  # noqa: B018  opening the channel pings the broker

    def _note(self, message: Message | None) -> None:
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            log.warning("bell_full", message=message)  # the workers' sweep rings for it

    def _publish_all(self) -> None:
        while (message := self._waiting.get()) is not None:
            self._publish(message)

    def _publish(self, message: Message) -> None:
        pause = 0.5
        while True:
            try:
                self._send(message)
            except self._broken as error:
                log.warning("bell_not_rung", task=message.task, id=message.identifier, error=type(error).__name__)
            else:
                return
            if self._closing.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _send(self, message: Message) -> None:
        """Unless as many messages as rows wait in its line."""
        queue_name, count = self._line_of(message)
        with self._app.connection_for_write() as connection:
            num_messages = connection.default_channel.queue_declare(queue=queue_name).message_count
        if count(num_messages + 1) > num_messages:
            sent = {"args": [message.identifier], "queue": queue_name}
            self._app.send_task(message.task, **sent, retry=False, ignore_result=True)

    def _line_of(self, message: Message) -> Line:
        own = self._line_of_job(message.identifier) if message.task == RUN_JOB else None
        return own or self._lines[message.task]
