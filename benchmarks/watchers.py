"""What watchers of a job cost: transactions a second and the time of a GET beside them.

    python -m benchmarks.watchers --watchers 0 200 1000 [--database-url postgresql://...]

One service process, one job that says something ten times a second, and so many open streams of its events. Transactions
are counted where they begin, in the service's own engine.
"""

import argparse
import asyncio
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from sqlalchemy import event as sa_event

from alignment_core.events import StepCompleted
from alignment_core.spec import JobSpec
from service.main import create_app
from service.settings import Settings
from service.store import events, jobs, leases
from service.store.database import Store, open_store
from service.store.migrations import migrate
from service.store.projects import DEFAULT_PROJECT_ID

SPEC = {
    "model": {"type": "catalog", "name": "shapes"},
    "method": {"type": "diffusion_dpo", "dataset": {"type": "stored", "id": "ds_" + 26 * "0"}},
}
SETTLE_SECONDS, MEASURE_SECONDS = 3.0, 8.0


@dataclass(frozen=True)
class Watched:
    """What so many watchers cost: transactions beside the GETs, and the time of a GET, in the middle and of the slowest twentieth."""

    num_watchers: int
    num_served: int
    transactions_per_second: float
    median_seconds: float
    slow_seconds: float


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--watchers", type=int, nargs="+", default=[0, 200, 1000])
    arguments.add_argument("--database-url", default="")
    given = arguments.parse_args()
    for found in measured(given.watchers, given.database_url):
        sys.stdout.write(line_of(found) + "\n")
        sys.stdout.flush()


def measured(numbers: list[int], database_url: str) -> Iterator[Watched]:
    """What so many watchers cost, one number after the other, on one service."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), database_url=database_url)
        migrate(settings.resolved_database_url)
        app = create_app(settings)
        port = _free_port()
        config = uvicorn.Config(app, port=port, log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        threading.Thread(target=server.run, daemon=True).start()
        transactions = _counted(app.state.parts.store)
        for num_watchers in numbers:
            yield asyncio.run(_measure(settings, f"http://127.0.0.1:{port}", num_watchers, transactions))
        server.should_exit = True
        time.sleep(2)


def _counted(store: Store) -> list[float]:
    begun: list[float] = []
    sa_event.listen(store.engine, "begin", lambda _connection: begun.append(time.monotonic()))
    return begun


async def _measure(settings: Settings, url: str, num_watchers: int, transactions: list[float]) -> Watched:
    store = open_store(settings.resolved_database_url)  # the worker's own
    job = jobs.create(store, project_id=DEFAULT_PROJECT_ID, spec=JobSpec.model_validate(SPEC))
    leases.claim(store, job.id, "worker", 3600)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:
        received = [0] * num_watchers
        watching = [
            asyncio.create_task(_watch(client, f"{url}/v1/jobs/{job.id}/events", received, n))
            for n in range(num_watchers)
        ]
        stop = threading.Event()
        speaker = threading.Thread(target=_speak, args=(store, job.id, stop))
        await asyncio.sleep(SETTLE_SECONDS + num_watchers / 200)
        speaker.start()
        await asyncio.sleep(SETTLE_SECONDS)
        before, began, times = len(transactions), time.monotonic(), []
        while time.monotonic() - began < MEASURE_SECONDS:
            asked = time.monotonic()
            await asyncio.to_thread(httpx.get, f"{url}/v1/jobs/{job.id}", timeout=60)
            times.append(time.monotonic() - asked)
            await asyncio.sleep(0.2)
        rate = (len(transactions) - before - len(times)) / (time.monotonic() - began)
        stop.set()
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
    speaker.join()
    store.close()
    return Watched(
        num_watchers=num_watchers,
        num_served=sum(1 for count in received if count),
        transactions_per_second=rate,
        median_seconds=statistics.median(times),
        slow_seconds=sorted(times)[int(0.95 * len(times))],
    )


def line_of(found: Watched) -> str:
    return (
        f"{found.num_watchers:5} watchers ({found.num_served} served): {found.transactions_per_second:7.1f} transactions/s "
        f"beside the GETs, GET median {1000 * found.median_seconds:.0f} ms, 95 % {1000 * found.slow_seconds:.0f} ms"
    )


async def _watch(client: httpx.AsyncClient, url: str, received: list[int], number: int) -> None:
    async with client.stream("GET", url, headers={"Accept": "text/event-stream"}) as answer:
        async for chunk in answer.aiter_bytes():
            received[number] += len(chunk)


def _speak(store: Store, job_id: str, stop: threading.Event) -> None:
    step = 0
    while not stop.wait(0.1):
        step += 1
        said = StepCompleted(step=step, total_steps=10_000, metrics={"loss": 0.5}, step_seconds=0.1, eta_seconds=1.0)
        events.record_events(store, job_id, 1, [said])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


if __name__ == "__main__":
    main()
