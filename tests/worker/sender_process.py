"""A worker's sending of webhooks, in a process of its own, until its stdin is closed.

`python -m tests.worker.sender_process ROOT NAME`.
"""

import sys
from dataclasses import replace
from pathlib import Path

from service.store.database import open_store
from tests.worker.conftest import World, settings_in
from worker.webhooks import start_sending


def main(root: Path, name: str) -> None:
    settings = settings_in(root)
    parts = World(root, open_store(settings.resolved_database_url), settings).worker(name)
    near = {"webhooks_allow_private": True, "webhooks_poll_seconds": 0.02}
    parts = replace(parts, settings=parts.settings.model_copy(update=near))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()  # all begin together
    thread = start_sending(parts)
    sys.stdin.read()
    parts.shutting_down.set()
    thread.join(30)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
