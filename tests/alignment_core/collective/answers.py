"""What each process of a pair does: it answers requests until its launcher ends.

torchrun --nproc-per-node 2 -m tests.alignment_core.collective.answers FOLDER
"""

import json
import os
import sys
from itertools import count
from pathlib import Path

import torch

from alignment_core.lifeline import end_with_launcher
from alignment_core.quiet import silence_imports, silence_progress_bars
from tests.alignment_core.collective import program, states
from tests.servers.process import wait_until

SESSION_SECONDS = 3600.0


def main(folder: Path) -> None:
    end_with_launcher()
    silence_imports()
    silence_progress_bars()
    torch.set_num_threads(1)
    for number in count():
        asked = folder / f"{number}.json"
        wait_until(asked.exists, "a request", timeout_seconds=SESSION_SECONDS)
        answer(**json.loads(asked.read_text()))
        (folder / f"{number}-{os.environ['RANK']}").touch()


def answer(request: str, what: object) -> None:
    match request, what:
        case "runs", list():
            program.run_all(what)
        case "states", dict():
            states.write_all(what["specs"], Path(what["folder"]))
        case _:
            raise ValueError(request)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
