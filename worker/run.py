"""The life of one job, from claim to final state. Start reading here; Celery is not needed to follow or to test it.

    claim -> inputs -> training process -> events become rows, files become objects -> final state

A heartbeat renews the lease all the while and hears cancel and pause. A job ends as `failed` when its run failed; only a
lost worker makes it run again. A store or a disk that stays away fails nothing: it is waited for, then the job is paused.
"""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal, assert_never

import structlog
from sqlalchemy.exc import DBAPIError

from alignment_core.errors import AlignmentError
from alignment_core.events import Event, PhaseDivided, RunFailed
from alignment_core.spec import CandidatesSpec, JobSpec, ProofSpec, RemoteReward
from alignment_core.spec.places import walk
from service.settings import Settings
from service.store import leases
from service.store.clock import host_seconds
from service.store.fence import Fenced
from service.store.kinds import kind_of, spec_of
from service.store.records.base import JobError
from service.store.records.jobs import Claim, JobRecord
from worker import inputs
from worker.cards import learn_from
from worker.courier import bringing_requests
from worker.errands import error_of
from worker.evaluations import prepare_candidates, prepare_evaluation, prepare_verification
from worker.heartbeat import Heartbeat, Signal
from worker.launchers.contract import Gang, Plan
from worker.outcome import Stopped, is_of_killed, may_follow_from_another, outcome
from worker.parts import WorkerParts
from worker.patience import Away, TrainerWithoutDisk, away_of, is_without_disk, patiently, wait_out
from worker.preparing import prepare_alignment
from worker.recording import keep_log, record, record_plain
from worker.shards import answering

BATCH_SECONDS = 0.1  # at most ten commits a second, however fast the steps are
LOG_SECONDS = 5.0
SHARE_BEFORE_LEASE_ENDS = 0.1  # of the lease: so long before its end the training processes are ended
TRACKER_ENVIRONMENT = {"wandb": "WANDB_", "mlflow": "MLFLOW_"}
SECRETS = ("ATTUNE_", "AWS_", "OTEL_", *TRACKER_ENVIRONMENT.values())
IMPORT_SAFELY = "PYTHONSAFEPATH"  # python's -P, which a launcher does not hand on to what it starts
ELASTIC_GRACE = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"  # torchrun kills its ranks 30 s after SIGTERM unless told otherwise

log = structlog.get_logger()


def run_job(parts: WorkerParts, job_id: str) -> None:
    """Run a queued job to its end, or as far as this worker gets; anything but a queued job is left alone."""
    claimed_at = host_seconds()
    claim = leases.claim(parts.store, job_id, parts.worker_id, parts.settings.lease_seconds)
    if claim is None:
        return
    with structlog.contextvars.bound_contextvars(job_id=job_id, attempt=claim.attempt):
        log.info("job_claimed")
        parts.telemetry.claimed(claim)
        parts.traces.claimed(claim)
        workdir = parts.settings.resolved_work_dir / job_id / f"attempt-{claim.attempt}"
        try:
            with _heartbeat(parts, claim, claimed_at) as heartbeat:
                error = _attempt(replace(parts, asked=lambda: heartbeat.signal), claim, workdir, heartbeat)
                _end(parts, claim, heartbeat.signal, error)
        except Fenced:
            log.warning("job_lost")
        except DBAPIError as error:
            if (away := away_of(error)) is None:
                raise
            log.warning("end_not_recorded", reason=away.reason)  # the lease ends, and a sweep finds the job
        finally:
            parts.telemetry.forget(job_id)
            parts.traces.forget(job_id)
            inputs.remove(workdir)


def _heartbeat(parts: WorkerParts, claim: Claim, claimed_at: float) -> Heartbeat:
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


Result = JobError | Away | Stopped | None
"""How an attempt ended; None when the run completed."""


def _attempt(parts: WorkerParts, claim: Claim, workdir: Path, heartbeat: Heartbeat) -> Result:
    """Run the training process; None when it completed. Raises `Fenced` when the job is another worker's by now."""

    def train() -> JobError | Stopped | None:
        asked = heartbeat.signal != "go_on"
        return Stopped() if asked else _train(uploading, claim, workdir, run_inputs, heartbeat)

    starting, uploading = _telling(parts, claim, "starting"), _telling(parts, claim, "uploading")
    try:
        run_inputs = wait_out(lambda: prepare(starting, claim, workdir), parts.settings, parts.asked, starting.waited)
        return wait_out(train, parts.settings, parts.asked)
    except Fenced:
        raise
    except AlignmentError as error:
        return error_of(error)
    except Exception as error:
        if (away := away_of(error)) is not None:
            log.warning("attempt_suspended", part=away.part, reason=away.reason)
            return away
        log.exception("attempt_failed")
        message = f"the worker could not go on: {type(error).__name__}"
        return JobError(code="worker_error", message=message, category="system", retryable=True)


def _telling(parts: WorkerParts, claim: Claim, phase: Literal["starting", "uploading"]) -> WorkerParts:
    """Parts that say in the job's events how long a store was waited for, beside a run that goes on too."""

    def waited(seconds: float) -> None:
        divided = PhaseDivided(phase=phase, seconds={"waiting_for_storage": round(seconds, 3)})
        record_plain(parts, claim, [divided])

    return replace(parts, waited=waited)


def prepare(parts: WorkerParts, claim: Claim, workdir: Path) -> list[str]:
    """Bring what the run needs to this machine; returns its arguments."""
    match kind_of(claim.job.id):
        case "job":
            return prepare_alignment(parts, claim, workdir)
        case "eval":
            return prepare_evaluation(parts, claim, workdir)
        case "vfy":
            return prepare_verification(parts, claim, workdir)
        case "cand":
            return prepare_candidates(parts, claim, workdir)
        case None:
            raise AssertionError(f"{claim.job.id} is no row of the queue")
        case kind:
            assert_never(kind)


def _train(
    parts: WorkerParts, claim: Claim, workdir: Path, run_inputs: list[str], heartbeat: Heartbeat
) -> JobError | Stopped | None:
    cache_dir = parts.settings.resolved_cache_dir
    spec = spec_of(claim.job)
    last: Event | None = None
    margin_seconds = parts.settings.lease_seconds * SHARE_BEFORE_LEASE_ENDS
    plan = Plan(
        job_id=claim.job.id,
        attempt=claim.attempt,
        trainer=parts.trainer,
        arguments=(*run_inputs, "--workdir", str(workdir), "--cache-dir", str(cache_dir)),
        processes=spec.resources.processes,
        until=heartbeat.lease_ends_at - margin_seconds,
        workdir=workdir,
        grace_seconds=parts.settings.cancel_grace_seconds,
        env={
            ELASTIC_GRACE: f"{parts.settings.cancel_grace_seconds:.0f}",
            **training_environment(),
            **remote_reward_environment(parts.settings, spec),
            **(tracker_environment(parts.settings) if kind_of(claim.job.id) == "job" else {}),
            IMPORT_SAFELY: "1",
        },
    )
    parts.launcher.end_orphans(claim.job.id, claim.attempt)
    with (
        answering(parts, claim, workdir) as exchange,
        bringing_requests(parts, claim, workdir),
        parts.launcher.start(plan) as gang,
    ):
        heartbeat.listen(lambda signal: _obey(gang, signal), lambda ends_at: gang.beat(ends_at - margin_seconds))
        logged_at = time.monotonic()
        for batch in gang.batches(BATCH_SECONDS):
            told = [one for one in batch if not (is_without_disk(one) or may_follow_from_another(one, plan.processes))]
            record(parts, claim, workdir, told)
            for one in told:
                parts.telemetry.heard(claim.job.id, one)
                parts.traces.heard(claim.job.id, one)
            last = batch[-1] if batch else last
            if time.monotonic() - logged_at > LOG_SECONDS:
                logged_at = time.monotonic()
                keep_log(parts, claim, gang)
        keep_log(parts, claim, gang)
    if isinstance(last, RunFailed) and is_without_disk(last):
        raise TrainerWithoutDisk(last)
    if exchange is not None and exchange.away is not None and isinstance(last, RunFailed):
        raise exchange.away
    result = outcome(gang, last, plan.processes)
    if last is not None and may_follow_from_another(last, plan.processes) and not is_of_killed(result):
        record(parts, claim, workdir, [last])
    return result


def training_environment() -> dict[str, str]:
    """This worker's environment without its keys and addresses: the process that loads a user's files needs none."""
    return {name: value for name, value in os.environ.items() if not name.startswith(SECRETS)}


def remote_reward_environment(settings: Settings, spec: JobSpec | ProofSpec | CandidatesSpec) -> dict[str, str]:
    """The one secret that a training process is given, if its spec has a remote reward, and where it may be used."""
    if not any(isinstance(part, RemoteReward) for _, part in walk(spec)):
        return {}
    hosts = {"ATTUNE_REMOTE_REWARD_HOSTS": ",".join(settings.remote_reward_hosts)}
    secret = settings.remote_reward_secret
    return hosts if secret is None else {**hosts, "ATTUNE_REMOTE_REWARD_SECRET": secret.get_secret_value()}


def tracker_environment(settings: Settings) -> dict[str, str]:
    """What the clients of the trackers that are switched on read: where their servers are, and what lets them in."""
    wanted = tuple(TRACKER_ENVIRONMENT[name] for name in settings.trackers if name in TRACKER_ENVIRONMENT)
    return {name: value for name, value in os.environ.items() if wanted and name.startswith(wanted)}


def _obey(gang: Gang, signal: Signal) -> None:
    match signal:
        case "lost" | "discard":
            gang.kill()
        case "cancel" | "pause" | "shutdown":
            gang.stop()
        case "go_on":
            pass
        case _:
            assert_never(signal)


# --- the end -------------------------------------------------------------------------------------------------------


def _end(parts: WorkerParts, claim: Claim, signal: Signal, result: Result) -> None:
    """Put the job into the state that follows from how its process ended and what was asked of it."""
    lease_seconds = parts.settings.lease_seconds

    def finish(end: leases.End, error: JobError | None = None) -> None:
        job = patiently(lambda: leases.finish(parts.store, claim.job.id, claim.attempt, end, error), lease_seconds)
        log.info("job_ended", state=job.state)
        _ended(parts, job)

    match result:
        case None:
            finish("succeeded")
            if kind_of(claim.job.id) == "job":
                _learn(parts, claim)
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
            _ended(parts, job)
        case Stopped() | Away():
            job = patiently(lambda: leases.give_back(parts.store, claim.job.id, claim.attempt), lease_seconds)
            log.info("job_given_back", state=job.state)
            _ended(parts, job)
            if job.state == "queued":
                parts.ring(claim.job.id)


def _ended(parts: WorkerParts, job: JobRecord) -> None:
    parts.telemetry.ended(job.id, job.state, job.updated_at)
    parts.traces.ended(job.id, job.state, job.updated_at)


def _learn(parts: WorkerParts, claim: Claim) -> None:
    """How fast the job was; what goes wrong here is no matter of the job, which has ended."""
    try:
        learn_from(parts, claim.job.model_copy(update={"attempt": claim.attempt}))
    except Exception:
        log.exception("rates_not_learnt")


def _is_back(away: Away) -> bool:
    """A database that answers this question is there again; one that was full may have no room for events still."""
    return away.part == "database" and away.reason == "unreachable"
