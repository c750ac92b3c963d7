"""Brings what is asked of a job to its training process: a file for each request, in a folder that the process looks into.

Requests stay rows until the run has answered, so a file that is lost with a machine is written again by the next attempt; one that comes
twice is answered once, by its id.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from service.store import actions
from service.store.records.jobs import Claim
from worker.parts import WorkerParts

ASKED = "asked"  # as `alignment_core.training.asked` has it, which needs torch

log = structlog.get_logger()


@contextmanager
def bringing_requests(parts: WorkerParts, claim: Claim, workdir: Path) -> Iterator[None]:
    """Look for requests every `poll_seconds` while the training runs."""
    folder, ended = workdir / ASKED, threading.Event()
    folder.mkdir(parents=True, exist_ok=True)

    def bring_until_ended() -> None:
        while not ended.wait(parts.settings.poll_seconds):
            try:
                bring(parts, claim.job.id, folder)
            except Exception as error:  # noqa: BLE001  a database or a disk that is away: the request waits
                log.warning("requests_not_brought", error=type(error).__name__)

    thread = threading.Thread(target=bring_until_ended, name="courier", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def bring(parts: WorkerParts, job_id: str, folder: Path) -> None:
    """Write what waits, and take away what was answered."""
    waiting = dict(actions.waiting(parts.store, job_id))
    for path in folder.glob("*.json"):
        if path.stem not in waiting:
            path.unlink(missing_ok=True)
    for action_id, action in waiting.items():
        path = folder / f"{action_id}.json"
        if not path.exists():
            path.write_text(json.dumps({"id": action_id, "action": action}))
            log.info("request_brought", action=action, action_id=action_id)
