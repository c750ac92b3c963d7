"""The check of an uploaded dataset or LoRA: a process reads it, its report decides between ready and failed."""

import json
import subprocess
from pathlib import Path
from typing import assert_never

import structlog
from pydantic import ValidationError

from alignment_core.errors import AlignmentError
from alignment_core.events import RunFailed
from alignment_core.reports import DatasetProblem, DatasetReport, LoraReport
from attune.tether import tethered
from service.store import datasets, keys
from service.store.records.base import JobError
from service.store.records.uploads import Browsing, DatasetClaim, DatasetRecord
from worker import inputs
from worker.errands import at_work, error_of, watched
from worker.heartbeat import Heartbeat
from worker.launch import launched
from worker.parts import WorkerParts
from worker.patience import (
    LONGEST_PAUSE_SECONDS,
    Away,
    TrainerWithoutDisk,
    is_without_disk,
    patiently,
    wait_out,
)
from worker.ranges import DATA, data_of
from worker.run import training_environment
from worker.shards import SHARDS, answering_check
from worker.traces import Errand

log = structlog.get_logger()

Report = DatasetReport | LoraReport
Found = tuple[Report, Browsing | None]
"""What a check found, and where what it made for people to browse is stored by now."""

BROWSING = "browsing.bin"


def prepare_dataset(parts: WorkerParts, dataset_id: str) -> None:
    """Check an uploaded dataset; one that is not waiting for it is left alone."""
    claim = datasets.claim(parts.store, dataset_id, parts.worker_id, parts.settings.lease_seconds)
    if claim is None:
        return
    with at_work(parts, _errand(claim), lambda: _renewed(parts, claim)) as work:
        result = _checked(work.parts, claim, work.heartbeat)
        if result is not None:
            ended = _end(parts, claim, result)
            work.told(ended.state, None if ended.error is None else ended.error.code)
        elif work.heartbeat.signal != "lost":
            _give_back(parts, claim)
            work.told("checking", None)


def _errand(claim: DatasetClaim) -> Errand:
    one = claim.dataset
    about = {"kind": one.kind}
    return Errand("check", "dataset", one.id, claim.attempt, one.project_id, one.updated_at, claim.traceparent, about)


def _renewed(parts: WorkerParts, claim: DatasetClaim) -> bool:
    return datasets.renew(parts.store, claim.dataset.id, claim.attempt, parts.settings.lease_seconds)


def _checked(parts: WorkerParts, claim: DatasetClaim, heartbeat: Heartbeat) -> Found | JobError | None:
    """The report, or why there is none; None when another worker, or this one in a while, will check the dataset.

    A store that is away is waited for as long as it takes: the owner would have to upload everything again. A disk of this
    machine may be full of this very dataset, so that ends with the attempts.
    """
    while heartbeat.signal == "go_on":
        try:
            return wait_out(lambda: _check(parts, claim, heartbeat), parts.settings, parts.asked)
        except Away as away:
            log.warning("check_waits", part=away.part, reason=away.reason)
            if away.part != "object store":
                return _without_disk(away) if claim.attempt >= parts.settings.max_attempts else None
            parts.shutting_down.wait(LONGEST_PAUSE_SECONDS)
    return None


def _without_disk(away: Away) -> JobError:
    hint = "Nothing is wrong with the data set: upload it again when there is room."
    return away.error.model_copy(update={"hint": hint})


def _check(parts: WorkerParts, claim: DatasetClaim, heartbeat: Heartbeat) -> Found | JobError | None:
    """One try of it. Raises `TrainerWithoutDisk` for a check that ended for want of a disk, `Away` for want of the store."""
    folder = parts.settings.resolved_work_dir.absolute() / f".check-{claim.dataset.id}-{claim.attempt}"
    inputs.remove(folder)
    folder.mkdir(parents=True)
    browsing = folder / BROWSING
    try:
        path = data_of(parts, claim.dataset, folder / DATA, folder / SHARDS)
        with answering_check(parts, claim.dataset, folder) as exchange:
            result = _run_check(parts, claim, heartbeat, path, browsing)
        if exchange is not None and exchange.away is not None and isinstance(result, JobError):
            raise exchange.away
        return (result, _stored(parts, claim, browsing)) if isinstance(result, DatasetReport | LoraReport) else result
    except AlignmentError as error:
        return error_of(error)
    finally:
        inputs.remove(folder)


def _stored(parts: WorkerParts, claim: DatasetClaim, browsing: Path) -> Browsing | None:
    """Put what people are to browse into the object store, beside the data set; None for weights, of which nothing is shown."""
    if claim.dataset.kind != "data":
        return None
    key = keys.browsing_key(claim.dataset.project_id, claim.dataset.id, claim.attempt)
    wait_out(lambda: parts.objects.put_file(key, browsing), parts.settings, parts.asked)
    return Browsing(object_key=key, size_bytes=browsing.stat().st_size)


def _run_check(
    parts: WorkerParts, claim: DatasetClaim, heartbeat: Heartbeat, path: Path, browsing: Path
) -> Report | JobError | None:
    process = subprocess.Popen(
        tethered([*launched(parts.trainer, 1), *_command(claim.dataset, path, browsing)]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=training_environment(),
        start_new_session=True,
    )
    with watched(process, heartbeat, parts.settings.max_check_seconds) as late:
        stdout, stderr = process.communicate()
    if heartbeat.signal != "go_on":
        return None
    if late.is_set():
        return _too_slow(claim.dataset.filename, parts.settings.max_check_seconds)
    return _result(process.returncode, stdout, stderr, path, claim.dataset)


def _command(dataset: DatasetRecord, path: Path, browsing: Path) -> list[str]:
    """What checks it."""
    match dataset.kind:
        case "data":
            shown = [f"--browsing={browsing}", f"--filename={dataset.filename}"]
            return ["check", str(path), *_how(dataset), *shown]
        case "lora":
            return ["check-lora", str(path)]
        case _:
            assert_never(dataset.kind)


def _how(dataset: DatasetRecord) -> list[str]:
    """How its owner wants it to be read."""
    columns = [] if dataset.columns is None else ["--columns", json.dumps(dataset.columns)]
    return [*columns, "--on-bad-row", dataset.on_bad_row]


def _too_slow(filename: str, max_seconds: float) -> JobError:
    return JobError(
        code="check_timed_out",
        message=f"{filename}: its check took longer than the {max_seconds:g} seconds that a check may take here",
        category="user",
        hint="Split it into several data sets, or ask the operator to raise ATTUNE_MAX_CHECK_SECONDS.",
    )


EXIT_UNUSABLE = 3  # of `python -m alignment_core check`: there is a report, and it says that the rows cannot be used


def _result(exit_code: int, stdout: bytes, stderr: bytes, path: Path, dataset: DatasetRecord) -> Report | JobError:
    line, filename = (stdout.splitlines() or [b""])[-1], dataset.filename
    try:
        if exit_code == 0 and dataset.kind == "lora":
            return LoraReport.model_validate_json(line)
        if exit_code in (0, EXIT_UNUSABLE):
            return _report_of(line, path, filename)
        failed = RunFailed.model_validate_json(line)
    except ValidationError:
        log.warning("check_crashed", exit_code=exit_code, stderr=stderr.decode(errors="replace")[-2000:])
        return JobError(
            code="check_crashed",
            message=f"{filename}: the check ended with exit code {exit_code} and no report",
            category="system",
            retryable=True,
        )
    if is_without_disk(failed):
        raise TrainerWithoutDisk(failed)
    values = json.loads(failed.model_dump_json(include={"code", "message", "category", "retryable", "hint"}))
    return JobError.model_validate(values | {"message": _shown(failed.message, path, filename)})


def _report_of(line: bytes, path: Path, filename: str) -> DatasetReport:
    report = DatasetReport.model_validate_json(line)
    return report.model_copy(update={"problems": [_shown_problem(one, path, filename) for one in report.problems]})


def _shown_problem(problem: DatasetProblem, path: Path, filename: str) -> DatasetProblem:
    details = [one.model_copy(update={"message": _shown(one.message, path, filename)}) for one in problem.details]
    return problem.model_copy(update={"message": _shown(problem.message, path, filename), "details": details})


def _shown(message: str, path: Path, filename: str) -> str:
    """The message with the user's name for the file in place of ours."""
    return message.replace(str(path), filename).replace(path.name, filename)


def _end(parts: WorkerParts, claim: DatasetClaim, result: Found | JobError) -> DatasetRecord:
    dataset_id, attempt, lease_seconds = claim.dataset.id, claim.attempt, parts.settings.lease_seconds
    if isinstance(result, JobError):
        ended = patiently(lambda: datasets.fail(parts.store, dataset_id, attempt, result), lease_seconds)
    else:
        ended = patiently(lambda: datasets.set_report(parts.store, dataset_id, attempt, *result), lease_seconds)
    log.info("dataset_checked", state=ended.state)
    return ended


def _give_back(parts: WorkerParts, claim: DatasetClaim) -> None:
    dataset_id, lease_seconds = claim.dataset.id, parts.settings.lease_seconds
    patiently(lambda: datasets.give_back(parts.store, dataset_id, claim.attempt), lease_seconds)
    log.info("dataset_given_back")
    parts.ring_dataset(dataset_id)
