"""The worker's own ring at the doorbell, for what it gives back and what a sweep finds waiting."""

from collections.abc import Callable

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from service.resource_classes import JOBS_QUEUE
from service.store import waiting
from service.store.database import Store

log = structlog.get_logger()


def ring(app: Celery, store: Store, job_id: str) -> None:
    """Send the message of a queued job, unless there is one already for every job that waits in its line."""
    found = waiting.class_of_job(store, job_id)
    line = () if found is None else (found,)
    queue = JOBS_QUEUE if found is None else found.queue
    _send(app, "attune.run_job", job_id, queue, lambda at_most: waiting.num_jobs(store, at_most, line))


def ring_dataset(app: Celery, store: Store, dataset_id: str) -> None:
    """The same for a data set, or an export, which the same workers make."""
    queue = app.amqp.router.route({}, "attune.prepare_dataset")["queue"].name
    _send(app, "attune.prepare_dataset", dataset_id, queue, lambda at_most: waiting.num_beside_jobs(store, at_most))


def _send(app: Celery, task: str, identifier: str, queue: str, num_waiting: Callable[[int], int]) -> None:
    """Send a message once; one that cannot be sent now is sent by a later sweep.

    Any message starts whatever waits, so more messages than rows are of no use, and a sweep that added to them every few
    seconds would bury the broker while all workers are busy.
    """
    with app.connection_for_write() as connection:
        broken = (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors)
        try:
            connection.ensure_connection(max_retries=0)  # else it is tried for as long as it takes, and the sweep waits
            num_messages = connection.default_channel.queue_declare(queue=queue).message_count
            if num_waiting(num_messages + 1) > num_messages:
                app.send_task(
                    task, args=[identifier], queue=queue, connection=connection, retry=False, ignore_result=True
                )
        except broken as error:
            log.warning("broker_unreachable", task=task, id=identifier, error=type(error).__name__)
