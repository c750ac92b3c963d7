"""An export of a checkpoint: a process writes the form that was asked for, and its files become objects.

    claim -> checkpoint and base model -> `python -m alignment_core export` -> files in the store -> ready or failed

The process is one of the machine that trains, since it loads tensors; nothing of it is kept but the files.
"""

import json
import signal as signals
import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO

import structlog
from pydantic import ValidationError

from alignment_core.errors import AlignmentError
from alignment_core.events import ExportCompleted, ExportEvent, FileRecord, RunFailed, export_event_from_json
from alignment_core.spec import JobSpec
from alignment_core.spec.exports import REPORT_FILE
from alignment_core.spec.places import RunLabel, Sources
from attune.tether import tethered
from service.store import datasets, exports, jobs, keys, outputs
from service.store.catalog import sources_of, stored_datasets
from service.store.checksums import crc32_of
from service.store.fence import Fenced
from service.store.objects import CHUNK_BYTES
from service.store.records.base import JobError, StoredFile
from service.store.records.checkpoints import CheckpointRecord, ExportRecord
from service.store.records.jobs import JobRecord
from worker import inputs
from worker.errands import at_work, error_of, watched
from worker.heartbeat import Heartbeat, Signal
from worker.launch import launched
from worker.parts import WorkerParts
from worker.patience import Away, TrainerWithoutDisk, is_without_disk, patiently, wait_out
from worker.preparing import model_of_checkpoint
from worker.run import training_environment
from worker.traces import Errand

TELL_EVERY_SECONDS = 1.0
STATE = "training_state/"

log = structlog.get_logger()


def make_export(parts: WorkerParts, export_id: str) -> None:
    """Make a queued export; one that is not queued is left alone."""
    claim = exports.claim(parts.store, export_id, parts.worker_id, parts.settings.lease_seconds)
    if claim is None:
        return
    with at_work(parts, _errand(claim), lambda: _renewed(parts, claim)) as work:
        result = _made(work.parts, claim, work.heartbeat)
        ended = _end(parts, claim, result, work.heartbeat.signal)
        work.told(ended.state, None if ended.error is None else ended.error.code)


def _errand(claim: ExportRecord) -> Errand:
    about = {"checkpoint_id": claim.checkpoint_id, "job_id": claim.job_id, "format": claim.format}
    return Errand(
        "export", "export", claim.id, claim.attempt, claim.project_id, claim.created_at, claim.traceparent, about
    )


def _renewed(parts: WorkerParts, claim: ExportRecord) -> bool:
    return exports.renew(parts.store, claim.id, claim.attempt, parts.settings.lease_seconds)


def _made(parts: WorkerParts, claim: ExportRecord, heartbeat: Heartbeat) -> list[StoredFile] | JobError | None:
    """The stored files, or why there are none; None when this worker has to leave it."""
    parts.settings.resolved_work_dir.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=parts.settings.resolved_work_dir, prefix=".export-") as folder:
            return wait_out(lambda: _attempt(parts, claim, Path(folder), heartbeat), parts.settings, parts.asked)
    except Away as away:
        return away.error.model_copy(update={"hint": "Ask for it again."})
    except AlignmentError as error:
        return error_of(error)
    except KeyError as error:
        message = f"this worker's catalog has no {error.args[0]!r}"
        return JobError(code="catalog_entry_missing", message=message, category="system")


def _attempt(
    parts: WorkerParts, claim: ExportRecord, folder: Path, heartbeat: Heartbeat
) -> list[StoredFile] | JobError | None:
    for leftover in folder.iterdir():  # of a try that a store or a disk ended
        inputs.remove(leftover)
    arguments = _fetched(parts, claim, folder)
    result = _converted(parts, claim, arguments, folder, heartbeat)
    if isinstance(result, ExportCompleted):
        return _uploaded(parts, claim, folder / "out", result.files)
    return result


# --- before --------------------------------------------------------------------------------------------------------


def _fetched(parts: WorkerParts, claim: ExportRecord, folder: Path) -> list[str]:
    """Bring the checkpoint and what its spec names as its model to this machine; the arguments of the process."""
    checkpoint = outputs.get_checkpoint(parts.store, claim.project_id, claim.checkpoint_id)
    job = jobs.get(parts.store, claim.project_id, claim.job_id)
    if checkpoint is None or job is None:
        raise Fenced(claim.id, claim.attempt)
    kept = [file for file in checkpoint.files if not file.path.startswith(STATE)]
    inputs.fetch_files(parts, kept, folder / "checkpoint")
    sources = _sources(parts, job, checkpoint, folder)
    (folder / "sources.json").write_text(sources.model_dump_json(), encoding="utf-8")
    report = outputs.get_report(parts.store, claim.project_id, claim.job_id)
    arguments = [str(folder / "checkpoint"), "--format", claim.format, "--out", str(folder / "out")]
    arguments += ["--sources", str(folder / "sources.json"), "--cache-dir", str(parts.settings.resolved_cache_dir)]
    if report is not None:
        (folder / REPORT_FILE).write_bytes(_json(report.report))
        arguments += ["--report", str(folder / REPORT_FILE)]
    return arguments


def _sources(parts: WorkerParts, job: JobRecord, checkpoint: CheckpointRecord, folder: Path) -> Sources:
    spec = JobSpec.model_validate(job.spec)
    ids = [found for _, found in stored_datasets(spec)]
    records = [datasets.get(parts.store, job.project_id, found) for found in ids]
    names = [record.name or record.filename for record in records if record is not None] or ids
    label = RunLabel(job_id=job.id, job_name=job.name, dataset_name=next(iter(names), None))
    if checkpoint.kind == "full":  # it holds the whole model
        return Sources(label=label)
    models = model_of_checkpoint(parts, job.project_id, spec, folder / "started_from")
    places = sources_of(spec, parts.catalog, dict.fromkeys(ids, folder), None, label)
    return Sources(label=label, models=places.models, models_of_checkpoints=models)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


# --- the process ---------------------------------------------------------------------------------------------------


def _converted(
    parts: WorkerParts, claim: ExportRecord, arguments: list[str], folder: Path, heartbeat: Heartbeat
) -> ExportCompleted | JobError | None:
    with (folder / "export.log").open("wb") as stderr:
        process = subprocess.Popen(
            tethered([*launched(parts.trainer, 1), "export", *arguments]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=training_environment(),
            start_new_session=True,
        )
    with watched(process, heartbeat, parts.settings.max_export_seconds) as late:
        assert process.stdout is not None
        last = _followed(parts, claim, process.stdout)
    if heartbeat.signal != "go_on":
        return None
    if late.is_set():
        return _too_slow(parts.settings.max_export_seconds)
    return _result(last, process.returncode, folder / "export.log")


def _followed(parts: WorkerParts, claim: ExportRecord, stream: IO[bytes]) -> ExportEvent | None:
    """The last event; how far it is becomes part of the row on the way."""
    last, told_at = None, time.monotonic()
    for line in stream:
        try:
            last = export_event_from_json(line)
        except ValidationError:
            continue
        if last.type == "export_progressed" and time.monotonic() - told_at >= TELL_EVERY_SECONDS:
            exports.progressed(parts.store, claim.id, claim.attempt, last.percent)
            told_at = time.monotonic()
    return last


def _result(last: ExportEvent | None, exit_code: int, log_path: Path) -> ExportCompleted | JobError:
    if isinstance(last, ExportCompleted) and exit_code == 0:
        return last
    if isinstance(last, RunFailed):
        if is_without_disk(last):
            raise TrainerWithoutDisk(last)
        return JobError.model_validate(last.model_dump(include={"code", "message", "category", "retryable", "hint"}))
    log.warning("export_crashed", exit_code=exit_code, stderr=log_path.read_text(errors="replace")[-2000:])
    message = f"the process that makes it ended with exit code {exit_code}"
    hint = "It may have had too little memory; ask for it again." if exit_code == -signals.SIGKILL else None
    return JobError(code="export_crashed", message=message, category="system", retryable=True, hint=hint)


def _too_slow(max_seconds: float) -> JobError:
    message = f"it took longer than the {max_seconds:g} seconds that an export may take here"
    hint = "Ask the operator to raise ATTUNE_MAX_EXPORT_SECONDS."
    return JobError(code="export_timed_out", message=message, category="system", retryable=True, hint=hint)


# --- after ---------------------------------------------------------------------------------------------------------


def _uploaded(parts: WorkerParts, claim: ExportRecord, out: Path, files: Sequence[FileRecord]) -> list[StoredFile]:
    prefix = keys.export_prefix(claim.project_id, claim.job_id, claim.checkpoint_id, claim.id)
    stored = []
    for record in files:
        path = (out / record.path).resolve()
        assert path.is_relative_to(out.resolve()), "the process lists files of its own folder"
        key = f"{prefix}attempt-{claim.attempt}/{record.path}"
        wait_out(partial(parts.objects.put_file, key, path), parts.settings, parts.asked)
        with path.open("rb") as file:  # archives have it in their headers
            crc32 = crc32_of(iter(partial(file.read, CHUNK_BYTES), b""))
        stored.append(StoredFile(**record.model_dump(), object_key=key, crc32=crc32))
    return stored


def _end(
    parts: WorkerParts, claim: ExportRecord, result: list[StoredFile] | JobError | None, signal: Signal
) -> ExportRecord:
    store, seconds = parts.store, parts.settings.lease_seconds
    match result:
        case list():
            ended = patiently(lambda: exports.finish(store, claim.id, claim.attempt, result), seconds)
        case JobError():
            ended = patiently(lambda: exports.fail(store, claim.id, claim.attempt, result), seconds)
        case None if signal == "lost":
            raise Fenced(claim.id, claim.attempt)
        case None:
            ended = exports.give_back(store, claim.id, claim.attempt)
            parts.ring_dataset(claim.id)
    log.info("export_ended", state=ended.state, format=claim.format)
    return ended
