"""What the files of models say is read here, once: this machine has the folders, and a way to the Hub where there is one.

A process without this worker's secrets reads them (`python -m alignment_core model`), as one reads datasets.
"""

import subprocess
import threading
from pathlib import Path

import structlog
from pydantic import ValidationError

from alignment_core.events import RunFailed
from alignment_core.model_files import ModelReport, stamp_of
from alignment_core.spec import LocalSource, SingleFileSource
from attune.tether import tethered
from service.store import known_models
from service.store.known_models import ModelFiles
from worker.launch import launched
from worker.parts import WorkerParts
from worker.run import training_environment

READ_SECONDS = 120.0  # a process starts in five; the headers of a large model of the Hub take some more

log = structlog.get_logger()


def read_models(parts: WorkerParts) -> None:
    """Read the catalog's models where nobody has, or where a folder changed, and those that specs name."""
    sources = [entry.source for entry in parts.catalog.models.values() if entry.family != "clip"]
    for source in sources:
        known_models.ask(parts.store, source)
        if isinstance(source, LocalSource | SingleFileSource) and _has_changed(parts, source):
            _read(parts, source)
    while not parts.shutting_down.is_set() and (asked := known_models.claim_unread(parts.store)) is not None:
        _read(parts, asked)
    known_models.forget_old(parts.store)


def start_reading(parts: WorkerParts) -> threading.Thread:
    """Read what is asked for every `sweep_every_seconds`, from a thread, until the worker shuts down."""
    thread = threading.Thread(target=_read_until_shutdown, args=(parts,), name="models", daemon=True)
    thread.start()
    return thread


def _read_until_shutdown(parts: WorkerParts) -> None:
    while not parts.shutting_down.wait(parts.settings.sweep_every_seconds):
        try:
            read_models(parts)
        except Exception:
            log.exception("models_not_read")


def _has_changed(parts: WorkerParts, source: LocalSource | SingleFileSource) -> bool:
    known = known_models.recall(parts.store, source)
    if known is None or known.report is None:
        return False  # unread ones are claimed below
    stamp = stamp_of(Path(source.path))
    return stamp is not None and stamp != known.report.stamp


def _read(parts: WorkerParts, source: ModelFiles) -> None:
    result = _result(parts, source)
    if isinstance(result, ModelReport):
        known_models.remember(parts.store, source, result)
        log.info("model_read", source=source.type, family=result.family)
    else:
        known_models.not_read(parts.store, source, result)
        log.info("model_not_read", source=source.type, reason=result)


def _result(parts: WorkerParts, source: ModelFiles) -> ModelReport | str:
    """What its files say, or why they could not be read."""
    command = tethered([*launched(parts.trainer, 1), "model", source.model_dump_json()])
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=training_environment(),
            timeout=READ_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"reading it took longer than {READ_SECONDS:g} seconds"
    line = (done.stdout.splitlines() or [b""])[-1]
    try:
        if done.returncode == 0:
            return ModelReport.model_validate_json(line)
        return RunFailed.model_validate_json(line).message
    except ValidationError:
        log.warning(
            "model_reader_crashed", exit_code=done.returncode, stderr=done.stderr.decode(errors="replace")[-2000:]
        )
        return f"the process that reads it ended with exit code {done.returncode}"
