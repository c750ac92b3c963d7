"""What runs allocate while they train, against what was estimated before: `python -m benchmarks.memory OUT`.

A grid of settings on the demo's models, on the CPU in float32: every tensor that lives is counted, from the first step of training
on. What a GPU's run leaves on the host is counted apart: nothing of it is used in a step, and a CPU has it in the same memory. Prints the
ratios, and writes them as JSON and as a plot.
"""

import argparse
import gc
import itertools
import json
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import torch
from rich.console import Console
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alignment_core.alignment import align
from alignment_core.costs.memory import Memory, memory_of
from alignment_core.events import PhaseChanged, StepCompleted
from alignment_core.families.released import Released
from alignment_core.model_files import read_model_files
from alignment_core.spec import JobSpec
from demo.assets import ASSETS
from demo.families.assets import FAMILY_ASSETS

GIB = 2**30
console = Console()
NUM_PAIRS = 40
STEPS = 2
MODELS = {"sd": ASSETS / "model", "sdxl": FAMILY_ASSETS / "sdxl", "sd3": FAMILY_ASSETS / "sd3"}
GRID = tuple(itertools.product(MODELS, ("lora", "full"), (4, 16), (False, True)))


class LivingBytes(TorchDispatchMode):
    """Bytes of all tensors that operations have made or read and that are still there, and the most there have been."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._living: set[int] = set()

    def count(self, tensor: torch.Tensor) -> None:
        """Once for each storage, until it goes."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._living:
            return
        self._living.add(key)
        weakref.finalize(storage, self._gone, key, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _gone(self, key: int, size: int) -> None:
        self._living.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in tree_leaves((found, args)):
            if isinstance(one, torch.Tensor):
                self.count(one)
        return found


def spec_of(family: str, adapter: str, batch: int, checkpointed: bool, pairs: Path) -> JobSpec:
    """Two steps of one micro-batch each."""
    written = {
        "model": {"type": "local", "path": str(MODELS[family])},
        "method": {"type": "diffusion_dpo", "dataset": {"type": "local", "path": str(pairs)}},
        "adapter": {"type": adapter},
        "training": {
            "start_checks": False,
            "steps": STEPS,
            "batch_size": batch,
            "gradient_accumulation_steps": 1,
            "gradient_checkpointing": checkpointed,
        },
        "resources": {"device": "cpu", "num_cpu_threads": 1},
    }
    return JobSpec.model_validate(written)


def on_a_card(spec: JobSpec) -> JobSpec:
    """The same as if there was a device beside the host."""
    return spec.model_copy(update={"resources": spec.resources.model_copy(update={"device": "cuda"})})


def estimated(spec: JobSpec, family: str) -> Memory:
    report = read_model_files(MODELS[family])
    assert report.family is not None
    found = memory_of(spec.resolved(report.family), report, report.family, is_half=False)
    assert found is not None
    return found


@dataclass(frozen=True)
class Measured:
    """GiB at the peak: of what a step has on its device, and of what waits on the host meanwhile."""

    device: float
    host: float


def measured_gib(spec: JobSpec, workdir: Path, cache_dir: Path) -> Measured:
    """From when training begins to the end of its last step."""
    gc.collect()  # what a run before this one left
    run = align(spec, workdir, cache_dir=cache_dir)
    _until(run, lambda event: isinstance(event, PhaseChanged) and event.phase == "training")
    living = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor | Released)]  # `isinstance` would
    away = [tensor for one in living if isinstance(one, Released) for tensor in one.away]  # ask objects that warn
    with LivingBytes() as meter:
        for one in away:
            meter.count(one)
        host = meter.now
        for one in living:
            if isinstance(one, torch.Tensor):
                meter.count(one)
        _until(run, lambda event: isinstance(event, StepCompleted) and event.step == STEPS)
        peak = meter.peak
    run.close()
    return Measured((peak - host) / GIB, host / GIB)


def _until(run: Iterator[Any], is_there: Callable[[Any], bool]) -> None:
    next(event for event in run if is_there(event))


def rows() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder) / "pairs.parquet"
        parquet.write_table(parquet.read_table(ASSETS / "pairs.parquet").slice(0, NUM_PAIRS), pairs)
        for index, (family, adapter, batch, checkpointed) in enumerate(GRID):
            spec = spec_of(family, adapter, batch, checkpointed, pairs)
            found = estimated(on_a_card(spec), family)
            measured = measured_gib(spec, Path(folder) / str(index), Path(folder) / "cache")
            yield {
                "model": family,
                "adapter": adapter,
                "batch_size": batch,
                "gradient_checkpointing": checkpointed,
                "estimated_gib": found.peak_gib,
                "measured_gib": round(measured.device, 5),
                "ratio": round(found.peak_gib / measured.device, 3),
                "left_on_host_gib": round(measured.host, 5),
                "ratio_on_a_cpu": round(estimated(spec, family).peak_gib / (measured.device + measured.host), 3),
                "components": found.model_dump(),
            }


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Estimated over measured, a point a setting."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "attune", "svg.fonttype": "none", "font.size": 9})
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 5), constrained_layout=True)
    for family in MODELS:
        points = [row for row in results if row["model"] == family]
        axes.scatter([row["measured_gib"] for row in points], [row["ratio"] for row in points], label=family)
    axes.axhspan(0.9, 1.1, alpha=0.12, color="black", lw=0)
    axes.set(xscale="log", xlabel="measured, GiB", ylabel="estimated over measured")
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="Folder for memory.json and memory.svg; `docs` for those of the page.")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    results = []
    for row in rows():
        results.append(row)
        kind = "checkpointed" if row["gradient_checkpointing"] else "plain"
        console.print(
            f"{row['model']:5} {row['adapter']:5} {row['batch_size']:3} {kind:12} "
            f"{row['measured_gib']:.4f} GiB, estimated {row['estimated_gib']:.4f}: {row['ratio']:.3f}",
            highlight=False,
        )
    worst = max(results, key=lambda row: abs(row["ratio"] - 1))
    console.print(f"farthest off: {worst['ratio']:.3f}", highlight=False)
    (out / "memory.json").write_text(json.dumps({"torch": torch.__version__, "results": results}, indent=1) + "\n")
    draw(results, out / "memory.svg")


if __name__ == "__main__":
    main()
