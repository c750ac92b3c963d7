"""Every command that speaks to a server, with arguments for one of everything (`seeds.sow`); and a worker who is in a hurry."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from service.store import datasets, deliveries, jobs, pushes, waiting
from service.store.database import Store
from service.store.deliveries import Answer
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.base import JobError
from tests.attune.calls import HOOK, SWEEP, Known, file, spec
from tests.service.api import test_candidates, test_evaluations
from tests.service.api.seeds import COMMIT
from tests.service.api.world import PARQUET, SAFETENSORS

Arguments = Callable[[Known, Path], list[str]]
WITHOUT_A_SERVER = {"up", "demo", "dataset prepare"}  # or with one of their own
REFUSED = JobError(code="not_looked_at", message="in a hurry", category="user", retryable=False)


@contextmanager
def hurrying(store: Store) -> Iterator[None]:
    """A worker who ends at once whatever a command waits for: fails checks, cancels what only tries, sends and pushes nothing, and says that it has."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(0.05):
            for one in waiting.next_datasets(store, 5):
                if (claim := datasets.claim(store, one, "w", 60)) is not None:
                    datasets.fail(store, one, claim.attempt, REFUSED)
            while (sent := deliveries.claim(store, 60)) is not None:
                deliveries.record(store, sent, Answer(200, 5), timedelta(days=1))
            for one in pushes.next_pushes(store, 5):
                if (push := pushes.claim(store, one, "w", 60)) is not None:
                    pushes.finish(store, one, push.attempt, COMMIT, f"https://hub.example.org/{COMMIT}")
            tried = [
                row.id for row in jobs.list_jobs(store, DEFAULT_PROJECT_ID, states=["queued"]).data if row.check_only
            ]
            again = [row.id for row in jobs.list_jobs(store, DEFAULT_PROJECT_ID, states=["queued"], kind="vfy").data]
            for one in [*tried, *again]:
                jobs.request_cancel(store, DEFAULT_PROJECT_ID, one)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(10)


def written(folder: Path, content: Any) -> str:
    return str(file(folder, "body.json", json.dumps(content).encode()))


def of(*names: str) -> Arguments:
    """The ids of these."""
    return lambda known, folder: [str(known[name]) for name in names]


NOTHING: Arguments = of()

COMMANDS: Mapping[str, Arguments] = {
    "models": NOTHING,
    "methods": NOTHING,
    "rewards": NOTHING,
    "quotas": NOTHING,
    "usage": NOTHING,
    "audit": NOTHING,
    "link": lambda k, f: [f"/v1/jobs/{k['job_id']}/report.html"],
    "report": of("job_id"),
    "check": lambda k, f: [written(f, spec(k))],
    "promote": lambda k, f: [k["checkpoint_id"], "--alias", "candidate"],
    "evaluate": lambda k, f: [written(f, test_evaluations.SPEC), "--no-wait"],
    "job submit": lambda k, f: [written(f, spec(k))],
    "job get": of("job_id"),
    "job show": of("job_id"),
    "job list": NOTHING,
    "job watch": of("job_id"),
    "job events": of("job_id"),
    "job metrics": of("job_id"),
    "job logs": of("job_id"),
    "job manifest": of("job_id"),
    "job samples": of("job_id"),
    "job tensorboard": of("logged_id"),
    "job ancestry": of("job_id"),
    "job ask": lambda k, f: [k["job_id"], "sample"],
    "job pause": of("waiting_id"),
    "job resume": of("waiting_id"),
    "job cancel": of("waiting_id"),
    "dataset upload": lambda k, f: [str(file(f, "pairs.parquet", PARQUET))],
    "dataset list": NOTHING,
    "dataset get": of("dataset_id"),
    "dataset pairs": of("dataset_id"),
    "dataset report": of("dataset_id"),
    "prompts upload": lambda k, f: [str(file(f, "p.txt", b"a star"))],
    "prompts list": NOTHING,
    "prompts show": of("prompt_set_id"),
    "prompts download": lambda k, f: [k["prompt_set_id"], "prompts.jsonl"],
    "weights upload": lambda k, f: [str(file(f, "a.safetensors", SAFETENSORS))],
    "weights list": NOTHING,
    "uploads list": NOTHING,
    "weights get": of("weights_id"),
    "checkpoint list": of("job_id"),
    "checkpoint download": lambda k, f: [k["checkpoint_id"], "checkpoint"],
    "checkpoint fork": lambda k, f: [k["checkpoint_id"], "--steps", "8"],
    "checkpoint push": lambda k, f: [k["checkpoint_id"], "our-team/again"],
    "checkpoint pin": of("checkpoint_id"),
    "checkpoint unpin": of("checkpoint_id"),
    "retention show": of("job_id"),
    "retention set": of("job_id"),
    "retention give-up": of("job_id"),
    "alias list": NOTHING,
    "alias history": NOTHING,
    "evaluation list": NOTHING,
    "evaluation get": of("evaluation_id"),
    "evaluation report": lambda k, f: [k["evaluation_id"], "--scores", "s.parquet", "--html", "page.html"],
    "evaluation verify": lambda k, f: [k["evaluation_id"], "--prompts", "1"],
    "evaluation logs": of("evaluation_id"),
    "evaluation pictures": lambda k, f: [k["evaluation_id"], "--out", "pictures"],
    "evaluation pause": of("evaluation_id"),
    "evaluation resume": of("evaluation_id"),
    "evaluation cancel": of("evaluation_id"),
    "candidates draw": lambda k, f: [written(f, test_candidates.SPEC), "--no-wait"],
    "candidates list": NOTHING,
    "candidates get": of("candidates_id"),
    "candidates images": lambda k, f: [k["candidates_id"], "--out", "images"],
    "candidates logs": of("candidates_id"),
    "candidates pause": of("candidates_id"),
    "candidates resume": of("candidates_id"),
    "candidates cancel": of("candidates_id"),
    "labeling create": of("candidates_id"),
    "labeling list": NOTHING,
    "labeling results": of("labeling_id"),
    "labeling dataset": of("labeling_id"),
    "sweep start": lambda k, f: [written(f, {"spec": spec(k), **SWEEP})],
    "sweep list": NOTHING,
    "sweep show": of("sweep_id"),
    "sweep cancel": of("sweep_id"),
    "webhooks create": lambda k, f: [HOOK],
    "webhooks list": NOTHING,
    "webhooks show": of("webhook_id"),
    "webhooks change": lambda k, f: [k["webhook_id"], "--description", "ours"],
    "webhooks rotate": of("webhook_id"),
    "webhooks test": of("webhook_id"),
    "webhooks deliveries": of("webhook_id"),
    "webhooks redeliver": of("webhook_id", "delivery_id"),
    "keys create": lambda k, f: ["another"],
    "keys list": NOTHING,
    "keys rotate": of("key_id"),
    "keys revoke": of("key_id"),
    "sessions list": NOTHING,
    "sessions end": of("session_id"),
    # what deletes comes last
    "webhooks delete": of("webhook_id"),
    "labeling delete": of("labeling_id"),
    "candidates delete": of("candidates_id"),
    "evaluation delete": of("evaluation_id"),
    "sweep delete": of("sweep_id"),
    "prompts delete": of("prompt_set_id"),
    "dataset delete": of("dataset_id"),
    "weights delete": of("weights_id"),
    "uploads delete": of("upload_id"),
    "checkpoint delete-push": of("checkpoint_id", "push_id"),
    "checkpoint delete-export": of("checkpoint_id", "format"),
    "alias delete": of("alias"),
    "checkpoint delete": of("checkpoint_id"),
    "job delete-sample": of("job_id", "sample_id"),
    "job delete-report": of("job_id"),
    "job delete": of("job_id"),
}
