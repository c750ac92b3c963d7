"""A worker of a test's world in a process of its own, which the test may stop and kill.

`python -m tests.worker.worker_process ROOT JOB NAME`.
"""

import dataclasses
import shlex
import sys
from pathlib import Path

from service.store.database import open_store
from tests.worker.conftest import World, settings_in
from worker.run import run_job


def main(root: Path, job_id: str, name: str, trainer: str | None = None) -> None:
    settings = settings_in(root)
    parts = World(root, open_store(settings.resolved_database_url), settings).worker(name)
    run_job(dataclasses.replace(parts, trainer=tuple(shlex.split(trainer))) if trainer else parts, job_id)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
