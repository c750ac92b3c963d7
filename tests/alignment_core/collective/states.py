"""What every process of a run holds after it stopped, was loaded anew, resumed and went on: written down rank by rank."""

from contextlib import closing
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from alignment_core.alignment import align
from alignment_core.checkpoints import latest
from alignment_core.load.accelerator import new_accelerator
from alignment_core.shares import local, whole
from alignment_core.spec import JobSpec
from alignment_core.training.run import Run
from tests.alignment_core.load.test_combinations import steps_of
from tests.alignment_core.load.test_loading import loaded

STOP = 2


def stop_and_go_on(spec: JobSpec, workdir: Path, cache_dir: Path, rank: int) -> None:
    """Two steps, and two more by a run that was loaded anew; what it holds before and after those."""
    with closing(align(spec, workdir, cache_dir=cache_dir)) as run:
        for event in run:
            if event.type == "step_completed" and event.step == STOP:
                break
    folder = latest(workdir / "checkpoints")
    assert folder is not None
    resumed = loaded(spec.resolved(), cache_dir)
    resumed.restore(folder)
    save_file(held(resumed), workdir / f"resumed-{rank}.safetensors")
    for _ in steps_of(resumed, first_step=STOP):
        pass
    save_file(held(resumed), workdir / f"after-{rank}.safetensors")


def held(run: Run) -> dict[str, Tensor]:
    """Everything whole, and how much of the optimizer's state is here."""
    slots = [value for state in run.optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    parts = {
        "policy": {name: whole(one.detach()) for name, one in run.actors.trainable().items()},
        "reference_weights": {name: whole(one) for name, one in run.actors.reference.items()},
        "reference": run.reference.state_dict(),
        "timesteps": run.timesteps.state_dict(),
        "optimizer": {
            "here": torch.tensor(sum(local(slot).numel() for slot in slots)),
            "steps": torch.stack([whole(slot) for slot in slots if slot.dim() == 0]).unique(),
        },
    }
    return {f"{part}/{name}": one.cpu().contiguous() for part, named in parts.items() for name, one in named.items()}


def write_all(specs: dict[str, object], folder: Path) -> None:
    for name, spec in specs.items():
        run, workdir = JobSpec.model_validate(spec), folder / name
        new_accelerator(run)  # connects the processes
        stop_and_go_on(run, workdir, folder / "cache", torch.distributed.get_rank())
