"""The Celery app and its few settings; `docs/design.md` says what follows from which.

    celery -A worker.app worker --queues celery              runs jobs, one at a time
    celery -A worker.app worker --queues celery.large        the same, of one class (`service/resource_classes.py`)
    celery -A worker.app worker --queues attune.datasets --concurrency 4     checks datasets, four at once

The pool is threads of the worker's own process (`pool.py`), one unless told otherwise. Training is a process of its own, so the thread only waits; SIGKILL of
the worker then leaves no pool process that goes on renewing the lease, and SIGTERM reaches the job at once.
"""

import functools
import os
import shlex
import socket
import threading
from collections.abc import Sequence

from celery import Celery, signals

from service.logs import configure_logging
from service.resource_classes import JOBS_QUEUE, served_by
from service.settings import Settings
from service.store.catalog import Catalog
from service.store.counted import CountedObjects
from service.store.database import open_store
from service.store.objects import open_objects
from worker import bell
from worker.cards import announce
from worker.launch import ALONE
from worker.launchers.choose import launcher_of
from worker.models import start_reading
from worker.parts import WorkerParts
from worker.run import training_environment
from worker.sweep import start_sweeping
from worker.telemetry import WorkerTelemetry
from worker.traces import NoTraces, Traces
from worker.warm import WarmTrainer
from worker.webhooks import start_sending

DATASETS_QUEUE = "attune.datasets"
CONNECT_TIMEOUT_SECONDS = 5.0


def new_app(broker_url: str) -> Celery:
    """A Celery app for long jobs: a message is only a doorbell, so none is kept, repeated or answered."""
    app = Celery("attune", broker=broker_url, include=["worker.tasks"])
    app.conf.update(
        # acknowledged before the job runs: with late acknowledgement Redis delivers an hour-long job again and again
        task_acks_late=False,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_default_queue=JOBS_QUEUE,
        task_routes={"attune.prepare_dataset": {"queue": DATASETS_QUEUE}},
        # a message taken in advance would wait behind a long job while another worker is idle
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_pool="worker.pool:NudgingPool",
        worker_concurrency=1,
        # the job runs on when the broker is gone: its lease is in the database
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"socket_connect_timeout": CONNECT_TIMEOUT_SECONDS, "socket_keepalive": True},
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    return app


app = new_app(Settings().resolved_broker_url)


@functools.cache
def parts() -> WorkerParts:
    """The parts of this worker, opened at the first use: importing this module connects to nothing."""
    settings = Settings()
    store = open_store(settings.resolved_database_url, settings.classes, settings.limits)
    queues = tuple(app.amqp.queues.consume_from)
    warm, telemetry = warm_trainer(settings, queues), WorkerTelemetry()
    worker_id = f"{socket.gethostname()}:{os.getpid()}"
    return WorkerParts(
        settings=settings,
        store=store,
        objects=CountedObjects(open_objects(settings), telemetry.count_object_error),
        telemetry=telemetry,
        traces=traces_of(settings, worker_id),
        catalog=Catalog.load(settings.catalog_path),
        worker_id=worker_id,
        trainer=trainer_command(settings),
        launcher=launcher_of(settings, warm),
        warm=warm,
        serves=served_by(queues, settings.classes),
        ring=functools.partial(bell.ring, app, store),
        ring_dataset=functools.partial(bell.ring_dataset, app, store),
    )


def traces_of(settings: Settings, worker_id: str) -> Traces:
    """Imports nothing of OpenTelemetry where traces are off."""
    if not settings.traces:
        return NoTraces()
    from service.tracing import Tracing
    from worker.attempt_traces import AttemptTraces

    return AttemptTraces(Tracing("attune-worker", worker_id))


def trainer_command(settings: Settings) -> tuple[str, ...]:
    """What starts a training process, without its arguments."""
    if settings.trainer_command:
        return tuple(shlex.split(settings.trainer_command))
    return ALONE


def warm_trainer(settings: Settings, queues: Sequence[str]) -> WarmTrainer | None:
    """For a worker that runs jobs on its own host."""
    runs_jobs = any(queue.split(".")[0] == JOBS_QUEUE for queue in queues)
    if not (settings.warm_trainer and runs_jobs and settings.launcher == "local" and settings.trainer_command is None):
        return None
    return WarmTrainer(ALONE, training_environment, settings.warm_trainer_free_bytes)


@signals.worker_init.connect
def _begin(**_: object) -> None:
    configure_logging()


@signals.worker_ready.connect
def _start(**_: object) -> None:
    start_sweeping(parts())
    if (port := parts().settings.worker_metrics_port) is not None:
        parts().telemetry.serve(parts().settings.worker_metrics_host, port)
    start_reading(parts())
    start_sending(parts())
    if (warm := parts().warm) is not None:
        threading.Thread(target=warm.keep, args=(parts().shutting_down,), name="warm", daemon=True).start()
    announce(parts())  # the last one: a store that is away just now costs an estimate, and no job


@signals.worker_shutting_down.connect
def _shut_down(**_: object) -> None:
    """Tell the running job to save and leave; the worker waits for it. Called in the signal handler, so it only sets a flag."""
    parts().shutting_down.set()


@signals.worker_shutdown.connect
def _leave(**_: object) -> None:
    parts().traces.close()
