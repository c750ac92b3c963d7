"""The worker's own ring at the doorbell, for what it gives back and what a sweep finds waiting."""

from collections.abc import Callable

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from service.store import waiting
from service.store.database import Store

log = structlog.get_logger()


def ring(app: Celery, store: Store, job_id: str) -> None:
    """Send the message of a queued job, unless there is one already for every job that waits."""
    _send(app, "attune.run_job", job_id, lambda at_most: waiting.num_jobs(store, at_most))


def ring_dataset(app: Celery, store: Store, dataset_id: str) -> None:
    """The same for a data set, or an export, which the same workers make."""
    _send(app, "attune.prepare_dataset", dataset_id, lambda at_most: waiting.num_beside_jobs(store, at_most))


def _send(app: Celery, task: str, identifier: str, num_waiting: Callable[[int], int]) -> None:
    """Send a message once; one that cannot be sent now is sent by a later sweep.

    Any message starts whatever waits, so more messages than rows are of no use, and a sweep that added to them every few
    seconds would bury the broker while all workers are busy.
    """
    queue = app.amqp.router.route({}, task)["queue"].name
    with app.connection_for_write() as connection:
        broken = (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors)
        try:
            connection.ensure_connection(max_retries=0)  # else it is tried for as long as it takes, and the sweep waits
            num_messages = connection.default_channel.queue_declare(queue=queue).message_count
            if num_waiting(num_messages + 1) > num_messages:
                app.send_task(task, args=[identifier], connection=connection, retry=False, ignore_result=True)
        except broken as error:
            log.warning("broker_unreachable", task=task, id=identifier, error=type(error).__name__)
