"""What each process of a pair does of runs: one after the other, under their circumstances."""

import json
import os
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import patch_environment

from alignment_core.actors.replay import Plainly
from alignment_core.alignment import align
from alignment_core.errors import AlignmentError
from alignment_core.load import run as loading
from alignment_core.ranks import Ranks
from alignment_core.spec import JobSpec
from alignment_core.training import saving
from tests.alignment_core.collective.two import Circumstances
from tests.alignment_core.training.test_micro_batch import SmallDevice

BACKGROUND_BYTES, ARE_RECORDED, CUDA_GRAPHS = saving.BACKGROUND_BYTES, loading.are_recorded, loading.CudaGraphs


def run_all(runs: list[dict[str, Any]]) -> None:
    for run in runs:
        events, workdir = [], Path(run["workdir"])
        try:
            circumstances = Circumstances(**run["circumstances"])
            begun = circumstances.resume_from and Path(circumstances.resume_from)
            spec, cache_dir = JobSpec.model_validate(run["spec"]), Path(run["cache_dir"])
            follow(align(spec, workdir, cache_dir=cache_dir, resume_from=begun or None), events, circumstances)
        except AlignmentError as error:
            events.append({"type": "run_failed", "code": error.code, "message": error.message})
        rank = torch.distributed.get_rank()
        (workdir / f"events-{rank}.json").write_text(json.dumps(events))
        Ranks(rank, torch.distributed.get_world_size()).everywhere(lambda: None)  # nobody is a run ahead


def follow(happening: Any, events: list[Any], circumstances: Circumstances) -> None:
    """Add the events of a run to `events`, under circumstances that this machine does not have."""
    is_recorded = circumstances.is_recorded
    loading.are_recorded = (lambda *_, **__: True) if is_recorded else ARE_RECORDED
    loading.CudaGraphs = Plainly if is_recorded else CUDA_GRAPHS
    saving.BACKGROUND_BYTES = 0 if circumstances.saves_in_background else BACKGROUND_BYTES
    with ExitStack() as stack, patch_environment(CXX=_compiler(circumstances)):
        for event in stack.enter_context(closing(happening)):
            events.append(event.model_dump(mode="json"))
            if event.type == "step_completed" and event.step == circumstances.stop_after:
                break
            if event.type == "phase_changed" and event.phase == "training" and circumstances.most_images is not None:
                stack.enter_context(SmallDevice(circumstances.most_images[torch.distributed.get_rank()]))


def _compiler(circumstances: Circumstances) -> str:
    return "no-such-compiler" if circumstances.lacks_compiler == int(os.environ["RANK"]) else "g++"
