"""Real processes against one database: nothing is claimed twice, nothing is written by a stale attempt."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from service.store import events, jobs, leases, metrics
from service.store.database import Store
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records.jobs import JobRecord
from tests.servers.process import wait_until
from tests.service.store.test_events import step

NUM_JOBS = 200
NUM_PROCESSES = 4

CLAIM = """\
import json, sys
from service.store import jobs, leases
from service.store.database import open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
claimed = []
while queued := jobs.list_jobs(store, "proj_default", states=["queued"]).data:
    for job in queued:
        if claim := leases.claim(store, job.id, sys.argv[2], 60):
            claimed.append([job.id, claim.attempt])
print(json.dumps(claimed))
"""

WRITE = """\
import json, sys
from alignment_core.events import StepCompleted
from service.store import events, leases
from service.store.database import open_store
from service.store.fence import Fenced
store, job_id, attempt = open_store(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
written = 0
try:
    for number in range(1, 1_000_000):
        step = StepCompleted(step=number, total_steps=10, metrics={"by": attempt}, step_seconds=0.1)
        events.record_event(store, job_id, attempt, step)
        written += 1
except Fenced:
    print(json.dumps(written))
"""

SWEEP = """\
import json, sys
from service.store import leases
from service.store.database import open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps(leases.requeue_lost(store, 3).requeued))
"""


@contextmanager
def racing(program: str, *calls: Sequence[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """One process a call, all let loose at the same moment; killed if they are still there at the end."""
    root = Path(__file__).parents[3]
    with ExitStack() as stack:
        processes = []
        for arguments in calls:
            process = subprocess.Popen(
                [sys.executable, "-c", program, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=root,
                env={**os.environ, "PYTHONPATH": str(root)},
            )
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        yield processes


def answer_of(process: subprocess.Popen[str]) -> Any:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return json.loads(output)


def test_four_processes_claim_every_job_once(database_url: str, store: Store, new_job: Callable[[], JobRecord]) -> None:
    made = {new_job().id for _ in range(NUM_JOBS)}
    with racing(CLAIM, *([database_url, f"worker-{number}"] for number in range(NUM_PROCESSES))) as processes:
        claimed = [tuple(claim) for process in processes for claim in answer_of(process)]
    assert sorted(claimed) == sorted((job_id, 1) for job_id in made)
    page = jobs.list_jobs(store, PROJECT, limit=NUM_JOBS)
    assert {(job.state, job.attempt) for job in page.data} == {("starting", 1)}


def test_a_lost_worker_that_still_writes_is_fenced_off(database_url: str, store: Store, job: JobRecord) -> None:
    leases.claim(store, job.id, "worker-1", 60)
    with racing(WRITE, [database_url, job.id, "1"]) as (process,):
        wait_until(lambda: len(events.list_events(store, PROJECT, job.id)) >= 5, "the first writes")
        leases.renew(store, job.id, 1, -1)
        # a sweep passes over rows that are being written at that moment, and comes again
        wait_until(lambda: leases.requeue_lost(store, 3).requeued == (job.id,), "the sweep")
        assert leases.claim(store, job.id, "worker-2", 60) is not None
        events.record_event(store, job.id, 2, step(1, by=2.0))
        written = answer_of(process)
    told = events.list_events(store, PROJECT, job.id, limit=100_000)
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    by_first = [event for event in told if event.attempt == 1 and event.type == "step_completed"]
    assert len(by_first) == written
    assert [event.attempt for event in told] == [1] * (written + 1) + [2], "nothing of attempt 1 comes after attempt 2"
    rows = metrics.metrics(store, PROJECT, job.id)
    assert rows[0].metrics == {"by": 2.0}


def test_sweeps_beside_one_another_requeue_each_job_once(
    database_url: str, store: Store, new_job: Callable[[], JobRecord]
) -> None:
    made = [new_job().id for _ in range(40)]
    for job_id in made:
        leases.claim(store, job_id, "lost", -1)
    with racing(SWEEP, *([database_url] for _ in range(2))) as processes:
        requeued = [job_id for process in processes for job_id in answer_of(process)]
    assert sorted(requeued) == sorted(made)
