"""What every process of a launcher runs: one run after the other, since starting processes costs more than the tiny runs.

torchrun --nproc-per-node 2 -m tests.alignment_core.collective.program RUNS.json
"""

import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from alignment_core.alignment import align
from alignment_core.errors import AlignmentError
from alignment_core.quiet import silence_imports, silence_progress_bars
from alignment_core.ranks import Ranks
from alignment_core.spec import JobSpec


def main(runs: list[dict[str, Any]]) -> None:
    silence_imports()
    silence_progress_bars()
    torch.set_num_threads(1)
    for run in runs:
        workdir = Path(run["workdir"])
        events = []
        try:
            with closing(
                align(JobSpec.model_validate(run["spec"]), workdir, cache_dir=Path(run["cache_dir"]))
            ) as happening:
                for event in happening:
                    events.append(event.model_dump(mode="json"))
                    if event.type == "step_completed" and event.step == run["stop_after"]:
                        break
        except AlignmentError as error:
            events.append({"type": "run_failed", "code": error.code, "message": error.message})
        rank = torch.distributed.get_rank()
        (workdir / f"events-{rank}.json").write_text(json.dumps(events))
        Ranks(rank, torch.distributed.get_world_size()).everywhere(lambda: None)  # nobody is a run ahead
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
