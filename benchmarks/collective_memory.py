"""What each of two processes allocates while they train together, against what was estimated: `python -m benchmarks.collective_memory OUT`.

The demo's models over gloo on the CPU in float32, in shares (`fsdp2`) and whole on each (`ddp`); every setting by two new processes, of which each
counts its own tensors from the first step of training on. Prints the ratios, and writes them as JSON and as a plot.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as parquet
import torch
from rich.console import Console
from torch import UntypedStorage
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alignment_core.alignment import align
from alignment_core.families.released import Released
from alignment_core.quiet import silence_imports, silence_progress_bars
from alignment_core.spec import JobSpec
from benchmarks.estimate_plot import draw_collective_memory
from benchmarks.memory import GIB, NUM_PAIRS, STEPS, Measured, estimated, on_a_card, spec_of
from benchmarks.speed import save
from demo.assets import ASSETS

console = Console()
PROCESSES, BATCH = 2, 4
AVERAGED = {"type": "ema", "alpha": 0.5}
COPIED = {"type": "hard_copy", "every": 1}
# What lies in shares or whole: weights, what they are optimised with, and where the reference's are kept.
SETTINGS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "sd lora fsdp2": ("sd", "lora", "fsdp2", {}),
    **{f"{family} full fsdp2": (family, "full", "fsdp2", {}) for family in ("sd", "sdxl", "sd3")},
    **{f"{family} full ddp": (family, "full", "ddp", {}) for family in ("sd", "sdxl")},
    "sd full averaged": ("sd", "full", "fsdp2", {"reference": {**AVERAGED, "reg_mode": "policy_to_init"}}),
    "sd full copied": ("sd", "full", "fsdp2", {"reference": COPIED}),
    "sd lora dense_delta": ("sd", "lora", "fsdp2", {"reference": {**AVERAGED, "ref_store": "dense_delta"}}),
    "sd full accumulated": ("sd", "full", "fsdp2", {"training": {"gradient_accumulation_steps": 2}}),
}


class LivingStorages(TorchDispatchMode):
    """Bytes of all storages that operations have made or read and that are still there, and the most there have been.

    FSDP lets weights go by making their storage empty, and fills the same one again: both are counted when they happen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def count(self, tensor: torch.Tensor) -> None:
        """Of a tensor in shares, what this process holds; once for each storage, until it goes."""
        held = tensor._local_tensor if isinstance(tensor, DTensor) else tensor
        storage = held.untyped_storage()
        if storage._cdata not in self._sizes:
            weakref.finalize(storage, self._take, storage._cdata)
            self._take(storage._cdata, storage.nbytes())

    def _take(self, key: int, size: int | None = None) -> None:
        """It is so large now, or gone."""
        self.now += (size or 0) - self._sizes.pop(key, 0)
        self.peak = max(self.peak, self.now)
        if size is not None:
            self._sizes[key] = size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for one in tree_leaves((found, args, kwargs)):
            if isinstance(one, torch.Tensor):
                self.count(one)
        return found

    @contextmanager
    def following(self) -> Iterator[None]:
        """Inside, operations and storages that change their size are counted."""
        resize = UntypedStorage.resize_

        def counted(storage: UntypedStorage, size: int) -> Any:
            found = resize(storage, size)
            if storage._cdata in self._sizes:
                self._take(storage._cdata, storage.nbytes())
            return found

        with self, patch.object(UntypedStorage, "resize_", counted):
            yield


def spec_in_two(setting: str, pairs: Path) -> JobSpec:
    """Of one process; the other's is the same."""
    family, adapter, strategy, changes = SETTINGS[setting]
    written = spec_of(family, adapter, BATCH, False, pairs).model_dump(mode="json")
    written["resources"] |= {"processes": PROCESSES, "strategy": strategy}
    written["training"] |= changes.get("training", {})
    return JobSpec.model_validate(written | {key: one for key, one in changes.items() if key != "training"})


def measured_here(spec: JobSpec, workdir: Path, cache_dir: Path) -> Measured:
    """What this process holds, from when training begins to the end of the last step; both processes ask."""
    run = align(spec, workdir, cache_dir=cache_dir)
    next(event for event in run if event.type == "phase_changed" and event.phase == "training")
    gc.collect()
    living = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor | Released)]
    meter = LivingStorages()
    for one in (tensor for released in living if isinstance(released, Released) for tensor in released.away):
        meter.count(one)
    host = meter.now
    for one in living:
        if isinstance(one, torch.Tensor):
            meter.count(one)
    with meter.following():
        next(event for event in run if event.type == "step_completed" and event.step == STEPS)
    run.close()
    return Measured((meter.peak - host) / GIB, host / GIB)


def measured(setting: str, folder: Path) -> list[Measured]:
    """What each of two new processes measured."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES)]
    command = [sys.executable, *launcher, "-m", "benchmarks.collective_memory", str(folder), "--setting", setting]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return [Measured(**json.loads((folder / f"{rank}.json").read_text())) for rank in range(PROCESSES)]


def row(setting: str, folder: Path) -> dict[str, Any]:
    """Of the process that holds more."""
    folder.mkdir(parents=True)
    pairs = folder / "pairs.parquet"
    parquet.write_table(parquet.read_table(ASSETS / "pairs.parquet").slice(0, NUM_PAIRS), pairs)
    most, least = sorted(measured(setting, folder), key=lambda one: one.device, reverse=True)
    spec, family = spec_in_two(setting, pairs), SETTINGS[setting][0]
    found = estimated(on_a_card(spec), family)
    return {
        "setting": setting,
        "estimated_gib": found.peak_gib,
        "measured_gib": round(most.device, 5),
        "measured_gib_of_the_other": round(least.device, 5),
        "ratio": round(found.peak_gib / most.device, 3),
        "ratio_on_a_cpu": round(estimated(spec, family).peak_gib / (most.device + most.host), 3),
        "components": found.model_dump(),
    }


def _one_process(setting: str, folder: Path) -> None:
    silence_imports()
    silence_progress_bars()
    torch.set_num_threads(1)
    found = measured_here(spec_in_two(setting, folder / "pairs.parquet"), folder / "run", folder / "cache")
    written: Mapping[str, float] = vars(found)
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(written))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="Folder of JSON and plot; `docs` for that of the page.")
    parser.add_argument(
        "--only", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="Leave others as they are there."
    )
    parser.add_argument("--setting", choices=SETTINGS, help="Be one of the processes that measure it.")
    arguments = parser.parse_args()
    if arguments.setting is not None:
        return _one_process(arguments.setting, arguments.out)
    path = arguments.out / "collective_memory.json"
    known = json.loads(path.read_text())["results"] if path.is_file() else []
    found = {one["setting"]: one for one in known}
    for setting in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            found[setting] = of = row(setting, Path(folder) / "both")
        console.print(
            f"{setting:22} {of['measured_gib']:.4f} GiB, estimated {of['estimated_gib']:.4f}: {of['ratio']:.3f}"
        )
        report = {"results": [found[name] for name in SETTINGS if name in found]}
        save(report, path)
        draw_collective_memory(report, path.with_suffix(".svg"))


if __name__ == "__main__":
    main()
