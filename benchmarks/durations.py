"""Seconds that were estimated against those that runs took: `python -m benchmarks.durations OUT`.

What a worker does: the first run of a family teaches it the rates of this machine, and the others are estimated from them. On the demo's
models, on the CPU in one thread, in CPU seconds, so that other work on the machine does not count. Prints the ratios by phase, and
writes them as JSON and as a plot.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import torch

from alignment_core.alignment import align
from alignment_core.costs.learning import learnt
from alignment_core.costs.rates import Rate, corrected, rates_of_card
from alignment_core.costs.seconds import Duration, duration_of
from alignment_core.costs.work import Work, work_of
from alignment_core.model_files import read_model_files
from alignment_core.quiet import silence_imports, silence_progress_bars
from alignment_core.spec import JobSpec
from benchmarks.estimate_plot import draw_durations
from demo.assets import ASSETS
from demo.families.assets import FAMILY_ASSETS

MODELS = {"sd": ASSETS / "model", "sdxl": FAMILY_ASSETS / "sdxl", "sd3": FAMILY_ASSETS / "sd3"}
NUM_PAIRS, HELD_OUT = 64, 0.125
PROMPTS = ["a red circle", "a blue square", "a green cross", "a yellow triangle"]
DPO, KTO, MAPO, TAILOR = "diffusion_dpo", "diffusion_kto", "mapo", "tailorpo"
COLOUR = {"type": "colorfulness"}
# What methods that draw are given; the others have a data set.
ONLINE: Mapping[str, Mapping[str, Any]] = {
    TAILOR: {"rewards": [COLOUR]},
    "d3po": {"rewards": [COLOUR], "prompts_per_iteration": 4},
    "ddpo": {"reward": COLOUR, "prompts_per_iteration": 4},
    "dpok": {"reward": COLOUR, "prompts_per_iteration": 4},
}
REPORT = {"prompts": PROMPTS, "num_inference_steps": 8, "rewards": [COLOUR]}
# The first of a family is what the others are estimated from.
CASES: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("sd", "LoRA, batch 8", {}),
    ("sd", "LoRA, batch 2, twice accumulated", {"training": {"batch_size": 2, "gradient_accumulation_steps": 2}}),
    ("sd", "full", {"adapter": {"type": "full"}}),
    ("sd", "gradient checkpointing", {"training": {"gradient_checkpointing": True}}),
    ("sd", "reference_cache", {"training": {"reference_cache": {"draws": 1}, "steps": 24}}),
    ("sd", "Diffusion-KTO", {"method": {"type": KTO}}),
    ("sd", "MaPO", {"method": {"type": MAPO}}),
    ("sd", "64 pixels", {"method": {"transform": {"resolution": 64}}}),
    ("sd", "TailorPO", {"method": {"type": TAILOR}, "training": {"steps": 10, "batch_size": 4}}),
    ("sd", "TailorPO, more prompts", {"method": {"type": TAILOR}, "training": {"steps": 10}}),
    ("sd", "TailorPO-G", {"method": {"type": TAILOR, "guidance": {}}, "training": {"steps": 10}}),
    ("sd", "D3PO", {"method": {"type": "d3po"}}),
    ("sd", "DDPO", {"method": {"type": "ddpo"}}),
    ("sd", "DPOK", {"method": {"type": "dpok"}}),
    ("sdxl", "LoRA, batch 8", {}),
    ("sdxl", "full", {"adapter": {"type": "full"}}),
    ("sdxl", "TailorPO", {"method": {"type": TAILOR}, "training": {"steps": 10}}),
    ("sd3", "LoRA, batch 8", {}),
    ("sd3", "full", {"adapter": {"type": "full"}}),
)


def spec_of(family: str, changes: Mapping[str, Any], pairs: Path) -> JobSpec:
    method: dict[str, Any] = {"type": DPO, **changes.get("method", {})}
    if (drawn := ONLINE.get(method["type"])) is not None:
        method |= {"prompts": PROMPTS, "num_inference_steps": 6, **drawn}
    else:
        method["dataset"] = {"type": "local", "path": str(pairs)}
    training = {"steps": 12, "batch_size": 8, "gradient_accumulation_steps": 1, **changes.get("training", {})}
    return JobSpec.model_validate(
        {
            "model": {"type": "local", "path": str(MODELS[family])},
            "method": method,
            "adapter": changes.get("adapter", {"type": "lora"}),
            "training": {"start_checks": False, "validation_fraction": HELD_OUT, **training},
            "evaluation": REPORT,
            "resources": {"device": "cpu", "num_cpu_threads": 1},
        }
    )


def work_in(spec: JobSpec, family: str) -> Work:
    report = read_model_files(MODELS[family])
    assert report.family is not None
    images = 2 if spec.method.learns_from == "images" else 1
    examples = None if spec.method.data is None else round(NUM_PAIRS * images * (1 - HELD_OUT))
    found = work_of(
        spec.resolved(report.family), report, report.family, num_examples=examples, num_prompts=len(PROMPTS)
    )
    assert found is not None
    return found


def seconds_of(spec: JobSpec, folder: Path) -> dict[str, float]:
    """CPU seconds by phase, as the worker counts the wall's."""
    found: dict[str, float] = {}
    phase, since = "loading", time.process_time()
    for event in align(spec, folder / "work", cache_dir=folder / "cache"):
        if event.type == "phase_changed":
            now = time.process_time()
            found[phase] = found.get(phase, 0.0) + now - since
            phase, since = event.phase, now
    found[phase] = found.get(phase, 0.0) + time.process_time() - since
    return found


def rows(families: list[str]) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder) / "pairs.parquet"
        parquet.write_table(parquet.read_table(ASSETS / "pairs.parquet").slice(0, NUM_PAIRS), pairs)
        for family in families:
            known: dict[str, Rate] = dict(rates_of_card(None, is_gpu=False, is_half=False))
            for index, (_, name, changes) in enumerate(one for one in CASES if one[0] == family):
                spec = spec_of(family, changes, pairs)
                took, work = seconds_of(spec, Path(folder) / f"{family}-{index}"), work_in(spec, family)
                yield {
                    "model": family,
                    "case": name,
                    "seconds": {phase: round(seconds, 2) for phase, seconds in took.items()},
                    "ratio": ratios(duration_of(work, known, None), took),
                }
                of_this_run = learnt(work, took, known)
                new = {
                    phase: Rate(rate, rate, rate, "jobs")
                    for phase, rate in of_this_run.items()
                    if known[phase].source == "guess"
                }
                known = corrected(known, new)


def ratios(expected: Duration, took: Mapping[str, float]) -> dict[str, float]:
    """Expected over measured, of what is estimated together as it is measured together, and of all but loading.

    That is mostly the start of a process, which a run within this one does not have.
    """
    parts = {"training": ("training", "sampling", "scoring"), "evaluating": ("evaluating",)}
    measured = {
        "training": took.get("training", 0.0),
        "evaluating": took.get("evaluating", 0.0) + took.get("sampling", 0.0),
    }
    said = {
        name: sum(expected.phases[one].expected for one in of if one in expected.phases) for name, of in parts.items()
    }
    said["all"] = sum(one.expected for phase, one in expected.phases.items() if phase != "loading")
    measured["all"] = sum(seconds for phase, seconds in took.items() if phase != "loading")
    return {name: round(said[name] / seconds, 2) for name, seconds in measured.items() if seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=Path("durations"), help="of JSON and plot, without suffix")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    arguments = parser.parse_args()
    silence_imports()
    silence_progress_bars()
    torch.set_num_threads(1)
    found = []
    for row in rows(arguments.models):
        found.append(row)
        sys.stdout.write(f"{row['model']:5} {row['case']:34} {row['ratio']}  seconds {row['seconds']}\n")
        sys.stdout.flush()
    report = {"date": time.strftime("%Y-%m-%d"), "rows": found}
    arguments.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
    draw_durations(report, arguments.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
