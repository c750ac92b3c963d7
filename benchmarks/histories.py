"""Thousands of random histories of the service, each looked at after every step: `python -m benchmarks.histories --histories 2000`.

What may happen and what has to be true is in `simulation/`; hypothesis chooses, by the seed, and shrinks what breaks a claim.
Without `--database` it is SQLite in a temporary folder. A PostgreSQL database has to be one that nobody uses: it is emptied
before every history, so one with a job in it is refused.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa
import structlog
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from benchmarks.simulation.machine import Histories, histories_on
from benchmarks.simulation.world import World
from service.store.database import open_store
from service.store.migrations import migrate
from service.store.models import Job


def run(machine: type[Histories], *, seed_: int, histories: int, steps: int, shrinks: bool = True) -> None:
    """Raises what the first broken claim raises, its history shrunk to the steps that it takes."""
    phases = (Phase.generate, Phase.shrink) if shrinks else (Phase.generate,)
    run_state_machine_as_test(
        seed(seed_)(machine),
        settings=settings(
            max_examples=histories,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=phases,
            verbosity=Verbosity.normal,
            print_blob=False,
            suppress_health_check=(HealthCheck.too_slow, HealthCheck.filter_too_much),
        ),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.histories", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=50, help="of a history, at most")
    parser.add_argument("--database", help="URL of a database that nobody uses")
    args = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory() as folder:
        url = args.database or f"sqlite:///{folder}/attune.sqlite3"
        migrate(url)
        if _is_used(url):
            sys.stderr.write("this database has jobs: it would be emptied\n")
            return 2
        world = World(url, Path(folder) / "world")
        began, cpu = time.monotonic(), time.process_time()
        try:
            run(histories_on(world), seed_=args.seed, histories=args.histories, steps=args.steps)
        finally:
            sys.stdout.write(summary(world, time.monotonic() - began, time.process_time() - cpu))
            world.close()
    return 0


def summary(world: World, seconds: float, cpu_seconds: float) -> str:
    lines = [f"{number:8d}  {name}" for name, number in sorted(world.rules.items())]
    lines += [f"{number:8d}  {verb} while {state}" for (verb, state), number in sorted(world.verbs.items())]
    told = f"{world.num_histories} histories, {world.num_steps} steps, {seconds:.0f} s, {cpu_seconds:.0f} s of CPU"
    return "\n".join([*lines, told, ""])


def _is_used(url: str) -> bool:
    store = open_store(url)
    with store.read() as session:
        found = session.scalars(sa.select(Job.id).limit(1)).first()
    store.close()
    return found is not None


if __name__ == "__main__":
    sys.exit(main())
