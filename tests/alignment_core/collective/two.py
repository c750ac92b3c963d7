"""Runs of two processes beside the same runs in one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from alignment_core import align
from alignment_core.checkpoints import folder_of
from alignment_core.spec import JobSpec
from tests.alignment_core.collective.pair import Pair


@dataclass(frozen=True)
class Done:
    """A run that has ended: its work folder, and what its first process said."""

    workdir: Path
    events: list[dict[str, Any]]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    def metric(self, name: str) -> list[float]:
        return [event["metrics"][name] for event in self.of_type("step_completed")]

    def steps_of(self, kind: str, name: str) -> dict[str, float]:
        """The metrics of all such events, by step and name."""
        return {f"{event['step']}/{key}": value for event in self.of_type(kind) for key, value in event[name].items()}

    def checkpoint(self, step: int) -> Path:
        return folder_of(self.workdir / "checkpoints", step)

    @property
    def report(self) -> dict[str, Any]:
        (event,) = self.of_type("evaluation_completed")
        return event["report"]


@dataclass(frozen=True)
class Circumstances:
    """What befalls a run: where it is left, and what it begins from; recordings as of a GPU, by doing it again; every checkpoint beside the training, however small;
    a device of each rank on which no convolution finds room for more images; a rank whose machine has no compiler."""

    stop_after: int | None = None
    is_recorded: bool = False
    saves_in_background: bool = False
    most_images: Sequence[int] | None = None
    lacks_compiler: int | None = None
    resume_from: str | None = None


def in_two(
    pair: Pair,
    specs: Mapping[str, JobSpec],
    folder: Path,
    cache_dir: Path,
    circumstances: Mapping[str, Circumstances] = MappingProxyType({}),
) -> dict[str, Done]:
    """Each spec run by two real processes, one spec after the other."""
    runs = [
        {
            "spec": spec.model_dump(mode="json"),
            "workdir": str(folder / name),
            "cache_dir": str(cache_dir),
            "circumstances": asdict(circumstances.get(name, Circumstances())),
        }
        for name, spec in specs.items()
    ]
    for run in runs:
        Path(run["workdir"]).mkdir(parents=True, exist_ok=True)
    pair.ask("runs", runs)
    return {name: _done(folder / name, 0) for name in specs}


def _done(workdir: Path, rank: int) -> Done:
    return Done(workdir, json.loads((workdir / f"events-{rank}.json").read_text()))


def said_by_second(done: Done) -> Done:
    """The same run as its second process saw it."""
    return _done(done.workdir, 1)


def in_one(spec: JobSpec, workdir: Path, cache_dir: Path, resume_from: Path | None = None) -> Done:
    """The spec run in this process."""
    run = align(spec, workdir, cache_dir=cache_dir, resume_from=resume_from)
    return Done(workdir, [event.model_dump(mode="json") for event in run])


def in_twos(spec: JobSpec, strategy: str = "ddp") -> JobSpec:
    """The same steps by two processes: each has half of a micro-batch."""
    assert spec.batch_size % 2 == 0
    training = spec.training.model_copy(update={"batch_size": spec.batch_size // 2})
    resources = spec.resources.model_copy(update={"processes": 2, "strategy": strategy})
    return JobSpec.model_validate(spec.model_copy(update={"training": training, "resources": resources}).model_dump())


def weights_of(checkpoint: Path) -> dict[str, Tensor]:
    """The policy's, of a LoRA or of a whole denoiser."""
    lora = checkpoint / "pytorch_lora_weights.safetensors"
    if lora.is_file():
        return load_file(lora)
    parts = [checkpoint / "pipeline" / name for name in ("unet", "transformer")]
    return {name: one for part in parts for file in part.glob("*.safetensors") for name, one in load_file(file).items()}


def farthest(one: Path, other: Path) -> float:
    """The largest difference between two checkpoints' weights, but for one weight in ten thousand.

    Where a gradient is next to nothing, Adam divides rounding by rounding: one or two weights of fifty thousand then take a step of
    any sign, by how a CPU adds. What is wrong with a step is wrong with most of its weights.
    """
    mine, theirs = weights_of(one), weights_of(other)
    assert mine.keys() == theirs.keys()
    apart = torch.cat([(mine[name] - theirs[name]).abs().flatten() for name in mine])
    return float(apart.topk(apart.numel() // 10_000 + 1).values[-1])


def same_files(one: Path, other: Path) -> bool:
    """Whether every safetensors file of one checkpoint is in the other, bit for bit."""
    names = sorted(path.relative_to(one) for path in one.rglob("*.safetensors"))
    assert names
    return all(_equal(load_file(one / name), load_file(other / name)) for name in names)


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
