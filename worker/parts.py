"""What the worker is given: the parts it may speak to."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from service.resource_classes import ResourceClass
from service.settings import Settings
from service.store.catalog import Catalog
from service.store.database import Store
from service.store.objects import ObjectStore
from worker.heartbeat import Signal
from worker.launchers.contract import Launcher
from worker.launchers.local import LocalLauncher
from worker.telemetry import WorkerTelemetry
from worker.traces import NoTraces, Traces
from worker.warm import WarmTrainer


@dataclass(frozen=True)
class WorkerParts:
    """Built once by `app.py`, or by a test. `ring` sends the message of a queued job, `ring_dataset` that of a dataset.

    `asked` is what is asked of whoever waits for a store just now; a job's attempt puts its heartbeat there. `waited` is told how many
    seconds that took, for what the job's phases took.
    """

    settings: Settings
    store: Store
    objects: ObjectStore
    catalog: Catalog
    worker_id: str
    ring: Callable[[str], None]
    ring_dataset: Callable[[str], None]
    trainer: tuple[str, ...]
    serves: tuple[ResourceClass, ...] = ()  # all jobs when empty
    launcher: Launcher = field(default_factory=LocalLauncher)
    telemetry: WorkerTelemetry = field(default_factory=WorkerTelemetry)
    traces: Traces = field(default_factory=NoTraces)
    warm: WarmTrainer | None = None  # the launcher's, where it has one
    shutting_down: threading.Event = field(default_factory=threading.Event)
    exporting: threading.Lock = field(default_factory=threading.Lock)
    asked: Callable[[], Signal] = lambda: "go_on"
    waited: Callable[[float], None] = lambda _: None
