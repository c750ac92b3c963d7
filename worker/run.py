"""The life of one job, from claim to final state. Start reading here; Celery is not needed to follow or to test it.

    claim -> inputs -> training process -> events become rows, files become objects -> final state

A heartbeat renews the lease all the while and hears cancel and pause. A job ends as `failed` when its run failed; only a
lost worker makes it run again. A store or a disk that stays away fails nothing: it is waited for, then the job is paused.
"""

import os
import signal as signals
import time
from dataclasses import replace
from pathlib import Path
from typing import assert_never

import structlog

from alignment_core.errors import AlignmentError
from alignment_core.events import (
    CheckpointSaved,
    EvaluationCompleted,
    Event,
    RunCompleted,
    RunFailed,
    RunStopped,
    SamplesDrawn,
    WarningRaised,
)
from alignment_core.sources import RunLabel, walk
from alignment_core.spec import JobSpec, RemoteReward
from alignment_core.spec_sources import OnBadRow
from service.settings import Settings
from service.store import datasets, events, leases, outputs
from service.store.catalog import sources_of, stored_datasets
from service.store.clock import host_seconds
from service.store.fence import Fenced
from service.store.records import CheckpointRecord, Claim, DatasetRecord, JobError, StoredFile
from worker import inputs, uploads
from worker.guard import EXIT_LEASE_ENDED
from worker.heartbeat import Heartbeat, Signal
from worker.parts import Parts
from worker.patience import Away, TrainerWithoutDisk, away_of, is_without_disk, patiently, wait_out
from worker.process import TrainingProcess

WithFiles = CheckpointSaved | SamplesDrawn | EvaluationCompleted
BATCH_SECONDS = 0.1  # at most ten commits a second, however fast the steps are
LOG_SECONDS = 5.0
SHARE_BEFORE_LEASE_ENDS = 0.1  # of the lease: so long before its end the training processes are ended
SECRETS = ("ATTUNE_", "AWS_")
ELASTIC_GRACE = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"  # torchrun kills its ranks 30 s after SIGTERM unless told otherwise

log = structlog.get_logger()


def run_job(parts: Parts, job_id: str) -> None:
    """Run a queued job to its end, or as far as this worker gets; anything but a queued job is left alone."""
    claimed_at = host_seconds()
    claim = leases.claim(parts.store, job_id, parts.worker_id, parts.settings.lease_seconds)
    if claim is None:
        return
    with structlog.contextvars.bound_contextvars(job_id=job_id, attempt=claim.attempt):
        log.info("job_claimed")
        workdir = parts.settings.resolved_work_dir / job_id / f"attempt-{claim.attempt}"
        try:
            with _heartbeat(parts, claim, claimed_at) as heartbeat:
                error = _attempt(replace(parts, asked=lambda: heartbeat.signal), claim, workdir, heartbeat)
                _end(parts, claim, heartbeat.signal, error)
        except Fenced:
            log.warning("job_lost")
        finally:
            inputs.remove(workdir)


def _heartbeat(parts: Parts, claim: Claim, claimed_at: float) -> Heartbeat:
    settings, job_id = parts.settings, claim.job.id
    return Heartbeat(
        lambda: leases.renew(parts.store, job_id, claim.attempt, settings.lease_seconds),
        lambda: leases.poll(parts.store, job_id, claim.attempt),
        lease_seconds=settings.lease_seconds,
        heartbeat_seconds=settings.heartbeat_seconds,
        poll_seconds=settings.poll_seconds,
        shutting_down=parts.shutting_down,
        claimed_at=claimed_at,
    )


# --- the attempt ---------------------------------------------------------------------------------------------------


class Stopped(Exception):  # noqa: N818 - a state of affairs, read as one
    """The run left before its end without failing: it was asked to, or it was ended from outside."""


Result = JobError | Away | Stopped | None
"""How an attempt ended; None when the run completed."""


def _attempt(parts: Parts, claim: Claim, workdir: Path, heartbeat: Heartbeat) -> Result:
    """Run the training process; None when it completed. Raises `Fenced` when the job is another worker's by now."""

    def train() -> JobError | Stopped | None:
        asked = heartbeat.signal != "go_on"
        return Stopped() if asked else _train(parts, claim, workdir, run_inputs, heartbeat)

    try:
        run_inputs = wait_out(lambda: _prepare(parts, claim, workdir), parts.settings, parts.asked)
        return wait_out(train, parts.settings, parts.asked)
    except Fenced:
        raise
    except AlignmentError as error:
        return JobError(
            code=error.code,
            message=error.message,
            category=error.category,
            retryable=error.retryable,
            hint=error.hint,
        )
    except Exception as error:
        if (away := away_of(error)) is not None:
            log.warning("attempt_suspended", part=away.part, reason=away.reason)
            return away
        log.exception("attempt_failed")
        message = f"the worker could not go on: {type(error).__name__}"
        return JobError(code="worker_error", message=message, category="system", retryable=True)


def _prepare(parts: Parts, claim: Claim, workdir: Path) -> list[str]:
    """Bring everything the spec names to this machine; returns the arguments of the run that will read it."""
    inputs.remove(workdir)
    workdir.mkdir(parents=True, exist_ok=True)  # a read-only disk keeps it, and says so at the next write
    spec = JobSpec.model_validate(claim.job.spec)
    records = {found: _dataset(parts, claim, pointer, found) for pointer, found in stored_datasets(spec)}
    paths = {found: inputs.fetch_dataset(parts, record) for found, record in records.items()}
    columns = {found: record.columns for found, record in records.items()}
    bad_rows: dict[str, OnBadRow] = {found: record.on_bad_row for found, record in records.items()}
    begin = [] if _fetch_checkpoints(parts, claim, workdir) else _fetch_start(parts, claim, workdir)
    names = [record.name or record.filename for record in records.values()]
    label = RunLabel(job_id=claim.job.id, job_name=claim.job.name, dataset_name=next(iter(names), None))
    try:
        sources = sources_of(spec, parts.catalog, paths, columns, label, bad_rows)
        return [*inputs.write_inputs(spec, sources, workdir), *begin]
    except KeyError as error:
        message = f"this worker's catalog has no {error.args[0]!r}"
        raise AlignmentError("catalog_entry_missing", message, category="system") from error


def _fetch_checkpoints(parts: Parts, claim: Claim, workdir: Path) -> bool:
    """Fetch the newest whole checkpoint, and those before it that may be the result; False when there is none."""
    before_step = None
    while needed := outputs.checkpoints_to_resume(parts.store, claim.job.id, before_step):
        *may_be_result, latest = needed
        if _fetch_checkpoint(parts, claim, workdir, latest):
            for checkpoint in may_be_result:
                _fetch_checkpoint(parts, claim, workdir, checkpoint)
            return True
        before_step = latest.step
    return False


def _fetch_start(parts: Parts, claim: Claim, workdir: Path) -> list[str]:
    """The arguments of a run that begins from another job's checkpoint, which is fetched; none for a run that does not."""
    checkpoint_id = claim.job.resume_from_checkpoint_id
    if checkpoint_id is None:
        return []
    checkpoint = outputs.get_checkpoint(parts.store, claim.job.project_id, checkpoint_id)
    if checkpoint is None:
        raise AlignmentError("checkpoint_missing", f"resume_from: {checkpoint_id} does not exist any more")
    return ["--resume-from", str(inputs.fetch_checkpoint(parts, checkpoint, workdir / "resume_from"))]


def _fetch_checkpoint(parts: Parts, claim: Claim, workdir: Path, checkpoint: CheckpointRecord) -> bool:
    """False, and a warning among the job's events, when a file of it is missing or altered."""
    try:
        inputs.fetch_checkpoint(parts, checkpoint, workdir)
    except AlignmentError as error:
        message = f"the checkpoint of step {checkpoint.step} is passed over: {error.message}"
        _record_plain(parts, claim, [WarningRaised(code="checkpoint_passed_over", message=message)])
        return False
    log.info("checkpoint_fetched", step=checkpoint.step)
    return True


def _dataset(parts: Parts, claim: Claim, pointer: str, dataset_id: str) -> DatasetRecord:
    dataset = datasets.get(parts.store, claim.job.project_id, dataset_id)
    if dataset is None:
        raise AlignmentError("dataset_missing", f"{pointer}: {dataset_id} does not exist any more")
    return dataset


def _train(
    parts: Parts, claim: Claim, workdir: Path, run_inputs: list[str], heartbeat: Heartbeat
) -> JobError | Stopped | None:
    cache_dir = parts.settings.resolved_cache_dir
    command = [*parts.trainer, *run_inputs, "--workdir", str(workdir), "--cache-dir", str(cache_dir)]
    last: Event | None = None
    margin_seconds = parts.settings.lease_seconds * SHARE_BEFORE_LEASE_ENDS
    with TrainingProcess(
        command,
        until=heartbeat.lease_ends_at - margin_seconds,
        cwd=workdir,
        log_path=workdir / "trainer.log",
        grace_seconds=parts.settings.cancel_grace_seconds,
        env={
            ELASTIC_GRACE: f"{parts.settings.cancel_grace_seconds:.0f}",
            **training_environment(),
            **remote_reward_environment(parts.settings, JobSpec.model_validate(claim.job.spec)),
        },
    ) as process:
        heartbeat.listen(lambda signal: _obey(process, signal), lambda ends_at: process.beat(ends_at - margin_seconds))
        logged_at = time.monotonic()
        for batch in process.batches(BATCH_SECONDS):
            _record(parts, claim, workdir, [event for event in batch if not is_without_disk(event)])
            last = batch[-1] if batch else last
            if time.monotonic() - logged_at > LOG_SECONDS:
                logged_at = time.monotonic()
                _keep_log(parts, claim, process)
        _keep_log(parts, claim, process)
    if isinstance(last, RunFailed) and is_without_disk(last):
        raise TrainerWithoutDisk(last)
    return _outcome(process, last)


def training_environment() -> dict[str, str]:
    """This worker's environment without its keys and addresses: the process that loads a user's files needs none."""
    return {name: value for name, value in os.environ.items() if not name.startswith(SECRETS)}


def remote_reward_environment(settings: Settings, spec: JobSpec) -> dict[str, str]:
    """The one secret that a training process is given, if its spec has a remote reward, and where it may be used."""
    if not any(isinstance(part, RemoteReward) for _, part in walk(spec)):
        return {}
    hosts = {"ATTUNE_REMOTE_REWARD_HOSTS": ",".join(settings.remote_reward_hosts)}
    secret = settings.remote_reward_secret
    return hosts if secret is None else {**hosts, "ATTUNE_REMOTE_REWARD_SECRET": secret.get_secret_value()}


def _obey(process: TrainingProcess, signal: Signal) -> None:
    match signal:
        case "lost":
            process.kill()
        case "cancel" | "pause" | "shutdown":
            process.stop()
        case "go_on":
            pass
        case _:
            assert_never(signal)


def _outcome(process: TrainingProcess, last: Event | None) -> JobError | Stopped | None:
    """What the end of the process means: None when the run completed."""
    match last:
        case RunCompleted():
            return None
        case RunFailed():
            return JobError.model_validate(
                last.model_dump(include={"code", "message", "category", "retryable", "hint"})
            )
        case RunStopped():  # a launcher of several processes has an exit code of its own
            return Stopped()
    code = process.exit_code
    if code == EXIT_LEASE_ENDED:
        log.warning("lease_ended", message="the training was ended before another worker could start it again")
    if process.stop_requested or process.kill_requested or code in (EXIT_STOPPED, EXIT_LEASE_ENDED):
        return Stopped()
    last_line = process.log.tail(1)
    if code == -signals.SIGKILL:
        return JobError(
            code="trainer_killed",
            message="the training process was killed by the system, most likely for lack of memory",
            category="system",
            retryable=True,
            hint="Lower training.batch_size or training.transform.resolution, or use a machine with more memory.",
        )
    return JobError(
        code="trainer_crashed",
        message=f"the training process ended with exit code {code} and no result; its last line: {last_line}",
        category="system",
        retryable=True,
        hint="The job's log has more lines.",
    )


EXIT_STOPPED = 75  # of `python -m alignment_core run`: stopped, and resumable


# --- events and files ----------------------------------------------------------------------------------------------


def _record(parts: Parts, claim: Claim, workdir: Path, batch: list[Event]) -> None:
    """Turn events into rows, in order; what speaks of files is recorded once they are in the object store."""
    plain: list[Event] = []
    for event in batch:
        if isinstance(event, WithFiles):
            _record_plain(parts, claim, plain)
            plain = []
            _record_with_files(parts, claim, workdir, event)
        else:
            plain.append(event)
    _record_plain(parts, claim, plain)


def _record_plain(parts: Parts, claim: Claim, batch: list[Event]) -> None:
    if batch:
        patiently(
            lambda: events.record_events(parts.store, claim.job.id, claim.attempt, batch), parts.settings.lease_seconds
        )


def _record_with_files(parts: Parts, claim: Claim, workdir: Path, event: WithFiles) -> None:
    files = _upload(parts, claim, workdir, event)
    if files or isinstance(event, EvaluationCompleted):
        patiently(
            lambda: events.record_event(parts.store, claim.job.id, claim.attempt, event, files),
            parts.settings.lease_seconds,
        )


def _upload(parts: Parts, claim: Claim, workdir: Path, event: WithFiles) -> list[StoredFile]:
    if isinstance(event, SamplesDrawn):
        return uploads.upload_sample(parts, claim, workdir, event)
    if isinstance(event, EvaluationCompleted):
        return uploads.upload_page(parts, claim, workdir, event)
    try:
        return uploads.upload_checkpoint(parts, claim, workdir, event)
    except FileNotFoundError:
        if (workdir / event.path).exists():
            raise
        log.warning("checkpoint_pruned_before_upload", step=event.step)  # a newer one is on its way
        return []


def _keep_log(parts: Parts, claim: Claim, process: TrainingProcess) -> None:
    text = process.log.read_end(outputs.LOG_TAIL_CHARACTERS)
    patiently(lambda: outputs.put_log(parts.store, claim.job.id, claim.attempt, text), parts.settings.lease_seconds)


# --- the end -------------------------------------------------------------------------------------------------------


def _end(parts: Parts, claim: Claim, signal: Signal, result: Result) -> None:
    """Put the job into the state that follows from how its process ended and what was asked of it."""
    lease_seconds = parts.settings.lease_seconds

    def finish(end: leases.End, error: JobError | None = None) -> None:
        job = patiently(lambda: leases.finish(parts.store, claim.job.id, claim.attempt, end, error), lease_seconds)
        log.info("job_ended", state=job.state)

    match result:
        case None:
            finish("succeeded")
        case _ if signal == "lost":
            raise Fenced(claim.job.id, claim.attempt)
        case _ if signal == "cancel":
            finish("stopped")
        case JobError():
            finish("failed", result)
        case Away() if not _is_back(result) and signal != "shutdown":
            job = patiently(
                lambda: leases.suspend(parts.store, claim.job.id, claim.attempt, result.error), lease_seconds
            )
            log.warning("job_suspended", state=job.state, code=result.error.code)
        case Stopped() | Away():
            job = patiently(lambda: leases.give_back(parts.store, claim.job.id, claim.attempt), lease_seconds)
            log.info("job_given_back", state=job.state)
            if job.state == "queued":
                parts.ring(claim.job.id)


def _is_back(away: Away) -> bool:
    """A database that answers this question is there again; one that was full may have no room for events still."""
    return away.part == "database" and away.reason == "unreachable"
