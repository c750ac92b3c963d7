"""A push of a checkpoint to the Hub: its export, made first where it is not there, a model card with pictures, one commit.

claim -> export -> files of it and pictures on this machine -> `python -m worker.hub_commit` -> commit at the row, or why not
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import structlog

from alignment_core.spec.exports import CARD
from attune.tether import tethered
from service.store import exports, outputs, pushes
from service.store.fence import Fenced
from service.store.records.base import JobError, StoredFile
from service.store.records.checkpoints import ExportRecord, PushRecord
from service.store.records.runs import SampleRecord
from worker import inputs
from worker.errands import at_work, watched
from worker.export import make_export
from worker.heartbeat import Heartbeat, Signal
from worker.hub_card import card_for_hub
from worker.parts import WorkerParts
from worker.patience import Away, patiently, wait_out
from worker.run import training_environment
from worker.traces import Errand

COMMAND = [sys.executable, "-P", "-m", "worker.hub_commit"]
LOOK_SECONDS = 0.5
MOST_PICTURES = 2

Commit = tuple[str, str]
"""Hash and address."""

log = structlog.get_logger()


def make_push(parts: WorkerParts, push_id: str) -> None:
    """Make a queued push; one that is not queued is left alone."""
    claim = pushes.claim(parts.store, push_id, parts.worker_id, parts.settings.lease_seconds)
    if claim is None:
        return
    with at_work(parts, _errand(claim), lambda: _renewed(parts, claim)) as work:
        result = _made(work.parts, claim, work.heartbeat)
        ended = _end(parts, claim, result, work.heartbeat.signal)
        work.told(ended.state, None if ended.error is None else ended.error.code)


def _errand(claim: PushRecord) -> Errand:
    about = {"checkpoint_id": claim.checkpoint_id, "job_id": claim.job_id, "format": claim.format}
    return Errand("push", "push", claim.id, claim.attempt, claim.project_id, claim.created_at, claim.traceparent, about)


def _renewed(parts: WorkerParts, claim: PushRecord) -> bool:
    return pushes.renew(parts.store, claim.id, claim.attempt, parts.settings.lease_seconds)


def _made(parts: WorkerParts, claim: PushRecord, heartbeat: Heartbeat) -> Commit | JobError | None:
    """The commit, or why there is none; None when this worker has to leave it."""
    if parts.settings.hub_token is None:
        message = "this worker has no token of the Hub"
        return JobError(code="hub_token_missing", message=message, category="system", hint="It is ATTUNE_HUB_TOKEN.")
    export = _export_of(parts, claim)
    if export is None or export.state != "ready":
        return None if export is None else export.error
    parts.settings.resolved_work_dir.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=parts.settings.resolved_work_dir, prefix=".export-") as folder:
            repository = Path(folder) / "repository"
            wait_out(lambda: _fill(parts, claim, export, repository), parts.settings, parts.asked)
            return _committed(parts, claim, repository, heartbeat)
    except Away as away:
        return away.error.model_copy(update={"hint": "Ask for it again."})


def _export_of(parts: WorkerParts, claim: PushRecord) -> ExportRecord | None:
    """The export once it has ended, made here unless another worker makes it; None when this worker has to leave."""
    checkpoint = outputs.get_checkpoint(parts.store, claim.project_id, claim.checkpoint_id)
    if checkpoint is None:
        raise Fenced(claim.id, claim.attempt)
    export = exports.ask(parts.store, checkpoint, claim.format, again=True)
    while export is not None and export.state not in ("ready", "failed"):
        if parts.asked() != "go_on":
            return None
        if export.state == "queued":
            make_export(parts, export.id)
        else:
            parts.shutting_down.wait(LOOK_SECONDS)
        export = exports.get(parts.store, claim.checkpoint_id, claim.format)
    return export


def _fill(parts: WorkerParts, claim: PushRecord, export: ExportRecord, repository: Path) -> None:
    """Everything that the commit holds."""
    inputs.remove(repository)
    inputs.fetch_files(parts, list(export.files), repository)
    drawn = outputs.list_samples(parts.store, claim.project_id, claim.job_id)[-MOST_PICTURES:]
    pictures = [_picture(sample) for sample in drawn]
    inputs.fetch_files(parts, pictures, repository)
    card = repository / CARD
    shown = [(picture.path, sample.prompts) for picture, sample in zip(pictures, drawn, strict=True)]
    text = card_for_hub(card.read_text(encoding="utf-8"), claim.repo_id, claim.branch, claim.format, shown)
    card.write_text(text, encoding="utf-8")


def _picture(sample: SampleRecord) -> StoredFile:
    path = f"images/step-{sample.step}.png"
    return StoredFile(path=path, size_bytes=sample.size_bytes, sha256=sample.sha256, object_key=sample.object_key)


def _committed(
    parts: WorkerParts, claim: PushRecord, repository: Path, heartbeat: Heartbeat
) -> Commit | JobError | None:
    assert parts.settings.hub_token is not None
    asked = {
        "token": parts.settings.hub_token.get_secret_value(),
        "repo_id": claim.repo_id,
        "branch": claim.branch,
        "private": claim.is_private,
        "folder": str(repository),
        "message": f"Attune: {claim.checkpoint_id} as {claim.format}",
        "description": f"Job {claim.job_id}, push {claim.id}",
    }
    process = subprocess.Popen(
        tethered(COMMAND),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=training_environment(),
        start_new_session=True,
    )
    with watched(process, heartbeat, parts.settings.max_push_seconds) as late:
        answer, _ = process.communicate(json.dumps(asked).encode())
    if heartbeat.signal != "go_on":
        return None
    if late.is_set():
        message = f"it took longer than the {parts.settings.max_push_seconds:g} seconds that a push may take here"
        return JobError(code="push_timed_out", message=message, category="system", retryable=True)
    return _result(answer, process.returncode)


def _result(answer: bytes, exit_code: int) -> Commit | JobError:
    if exit_code != 0:
        log.warning("push_crashed", exit_code=exit_code)
        message = f"the process that pushes it ended with exit code {exit_code}"
        return JobError(code="push_crashed", message=message, category="system", retryable=True)
    told = json.loads(answer)
    return JobError.model_validate(told["error"]) if "error" in told else (told["commit"], told["url"])


def _end(parts: WorkerParts, claim: PushRecord, result: Commit | JobError | None, signal: Signal) -> PushRecord:
    store, seconds = parts.store, parts.settings.lease_seconds
    match result:
        case (commit, url):
            ended = patiently(lambda: pushes.finish(store, claim.id, claim.attempt, commit, url), seconds)
        case JobError():
            ended = patiently(lambda: pushes.fail(store, claim.id, claim.attempt, result), seconds)
        case None if signal == "lost":
            raise Fenced(claim.id, claim.attempt)
        case None:
            ended = pushes.give_back(store, claim.id, claim.attempt)
            parts.ring_dataset(claim.id)
    log.info("push_ended", state=ended.state, repo_id=claim.repo_id)
    return ended
