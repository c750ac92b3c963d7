"""What runs allocate while they train, against what was estimated before: `python -m benchmarks.memory OUT`.

A grid of settings on the demo's models, on the CPU, each in a process of its own: every tensor that lives is counted, from the first step of
training on. What a GPU's run leaves on the host is counted apart: nothing of it is used in a step, and a CPU has it in the same memory.
Online methods decode in every step, with workspaces on a GPU that are no tensors, so they are compared as a CPU has them alone. Prints the
ratios, and writes them as JSON and as a plot; `--only sd3 bf16` measures the settings with these words, and keeps what is there of others.
"""

import argparse
import gc
import itertools
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import torch
from rich.console import Console

from alignment_core.alignment import align
from alignment_core.costs.memory import Memory, memory_of
from alignment_core.events import PhaseChanged, StepCompleted
from alignment_core.families.released import Released
from alignment_core.model_files import read_model_files
from alignment_core.spec import JobSpec
from benchmarks.estimate_plot import draw_memory
from benchmarks.living_bytes import LivingBytes
from demo.assets import ASSETS
from demo.families.assets import FAMILY_ASSETS

GIB = 2**30
console = Console()
NUM_PAIRS = 40
STEPS = 2
MODELS = {"sd": ASSETS / "model", "sdxl": FAMILY_ASSETS / "sdxl", "sd3": FAMILY_ASSETS / "sd3"}
ADAPTERS = ("lora", "full")
ONLINE: dict[str, dict[str, Any]] = {
    "tailorpo": {"num_trained_steps": 2},
    "tailorpo_g": {"num_trained_steps": 2, "guidance": {}},
    "tailorpo_g_decoder": {"num_trained_steps": 2, "guidance": {"stop_network_grad": True}},
    "d3po": {},
    "ddpo": {},
    "dpok": {},
}


@dataclass(frozen=True)
class Setting:
    """What a run is asked for."""

    method: str
    model: str
    adapter: str
    batch_size: int
    precision: str = "fp32"
    gradient_checkpointing: bool = False

    @property
    def is_online(self) -> bool:
        return self.method in ONLINE

    @property
    def words(self) -> list[str]:
        kind = ["checkpointed"] if self.gradient_checkpointing else []
        return [self.method, self.model, self.adapter, f"{self.batch_size}", self.precision, *kind]

    def is_of(self, row: dict[str, Any]) -> bool:
        return all(row.get(name) == value for name, value in asdict(self).items())

    def spec(self, pairs: Path) -> JobSpec:
        spec = spec_of(self.model, self.adapter, self.batch_size, self.gradient_checkpointing, pairs)
        written = spec.model_dump(mode="json", exclude_unset=True)
        written["training"]["precision"] = self.precision
        if self.is_online:
            written["method"] = _online(self.method)
        return JobSpec.model_validate(written)


def _online(name: str) -> dict[str, Any]:
    """Few steps of a trajectory: their number changes no peak."""
    reward = {"type": "colorfulness"}
    judged = {"reward": reward} if name in ("ddpo", "dpok") else {"rewards": [reward]}
    prompts = (ASSETS / "prompts.txt").read_text().splitlines()[:NUM_PAIRS]
    return {"type": name.partition("_")[0], "prompts": prompts, "num_inference_steps": 4, **judged, **ONLINE[name]}


GRID = (
    *(Setting("diffusion_dpo", *one) for one in itertools.product(MODELS, ADAPTERS, (4, 16), ("fp32",), (False, True))),
    *(Setting("diffusion_dpo", *one) for one in itertools.product(MODELS, ADAPTERS, (4, 16), ("bf16",))),
    *(Setting(*one) for one in itertools.product(ONLINE, ("sd",), ADAPTERS, (4,))),
    *(Setting(*one) for one in itertools.product(("tailorpo", "tailorpo_g"), ("sd",), ADAPTERS, (16,))),
    *(Setting(*one) for one in itertools.product(("tailorpo", "tailorpo_g"), ("sdxl", "sd3"), ADAPTERS, (4,))),
)


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
    is_half = spec.training.precision in ("bf16", "fp16")
    found = memory_of(spec.resolved(report.family), report, report.family, is_half=is_half)
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


def row_of(setting: Setting, folder: Path) -> dict[str, Any]:
    """Measured in this process, which should have run nothing before: what a run leaves would count for the next."""
    spec = setting.spec(folder / "pairs.parquet")
    measured = measured_gib(spec, folder / "-".join(setting.words), folder / "cache")
    whole, on_a_cpu = measured.device + measured.host, estimated(spec, setting.model)
    row = {**asdict(setting), "ratio_on_a_cpu": round(on_a_cpu.peak_gib / whole, 3)}
    if setting.is_online:
        return {
            **row,
            "estimated_gib": on_a_cpu.peak_gib,
            "measured_gib": round(whole, 5),
            "components": on_a_cpu.model_dump(),
        }
    found = estimated(on_a_card(spec), setting.model)
    return {
        **row,
        "estimated_gib": found.peak_gib,
        "measured_gib": round(measured.device, 5),
        "ratio": round(found.peak_gib / measured.device, 3),
        "left_on_host_gib": round(measured.host, 5),
        "components": found.model_dump(),
    }


def rows(settings: Iterable[Setting]) -> Iterator[dict[str, Any]]:
    """Each from a process of its own, forked from one that has imported and computed nothing else; what is encoded of the pairs they share."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["alignment_core.load.run", __name__])
    with (
        tempfile.TemporaryDirectory() as name,
        ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as alone,
    ):
        folder = Path(name)
        table = parquet.read_table(ASSETS / "pairs.parquet").slice(0, NUM_PAIRS)
        parquet.write_table(table, folder / "pairs.parquet")
        for setting in settings:
            yield alone.submit(row_of, setting, folder).result()


def ratios_of(row: dict[str, Any]) -> list[float]:
    return [row[name] for name in ("ratio", "ratio_on_a_cpu") if name in row]


def main() -> None:
    arguments = _parser().parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "memory.json"
    kept = json.loads(file.read_text())["results"] if arguments.only and file.exists() else []
    by_setting = {setting: row for setting in GRID for row in kept if setting.is_of(row)}
    wanted = [setting for setting in GRID if {*arguments.only} <= {*setting.words}]
    results: list[dict[str, Any]] = []
    for setting, row in zip(wanted, rows(wanted), strict=True):
        by_setting[setting] = row
        results = [by_setting[setting] for setting in GRID if setting in by_setting]
        report = {"torch": torch.__version__, "results": results}
        file.write_text(json.dumps(report, indent=1) + "\n")
        draw_memory(report, arguments.out / "memory.svg")
        ratios = " and ".join(f"{ratio:.3f}" for ratio in ratios_of(row))
        console.print(f"{' '.join(setting.words):40} {row['measured_gib']:.4f} GiB: {ratios}", highlight=False)
    found = [ratio for row in results for ratio in ratios_of(row)]
    console.print(
        f"{len(results)} settings, estimated over measured {min(found):.3f} to {max(found):.3f}", highlight=False
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for memory.json and memory.svg; `docs` for those of the page")
    parser.add_argument("--only", nargs="+", default=[], help="measure the settings that have all these words")
    return parser


if __name__ == "__main__":
    main()
