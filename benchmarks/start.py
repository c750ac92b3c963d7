"""From the claim of a job to its first step: `python -m benchmarks.start OUT`.

A training process as a worker starts one, on a model of random weights: once with nothing remembered, then again as on a warm machine,
where the files are in the page cache, the images encoded and the weights' hashes known, and a third time in a process that had its
imports done and waited (`worker/warm.py`). Prints seconds and CPU seconds by part, and
writes them as JSON and as a plot. `--size sd15` reads 4 GiB of weights; its step is one of 64 px, since on a CPU the first step of 512 px is no
matter of the start.
"""

import argparse
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTS = ("interpreter", "imports", "weights", "hashes", "data", "rest", "first step")
ADAPTERS = ("lora", "full")
WAITS = "waits"  # in place of when it began: stdin says that, once all is imported


class Clock:
    """Wall and CPU seconds by part; what is timed inside another part counts for the inner one alone."""

    def __init__(self, began: float, cpu_seconds: float = 0.0) -> None:
        self.parts = {name: [0.0, 0.0] for name in PARTS}
        self._at = (began, cpu_seconds)
        self._now = ["interpreter"]

    def enter(self, part: str) -> None:
        self._count()
        self._now.append(part)

    def leave(self) -> None:
        self._count()
        self._now.pop()

    def turn_to(self, part: str) -> None:
        self._count()
        self._now[-1] = part

    def _count(self) -> None:
        at = (time.time(), time.process_time())
        for index in (0, 1):
            self.parts[self._now[-1]][index] += at[index] - self._at[index]
        self._at = at

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        self.enter(part)
        try:
            yield
        finally:
            self.leave()

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def inner(*arguments: Any, **named: Any) -> Any:
            with self.within(part):
                return call(*arguments, **named)

        return inner


def started(spec_path: Path, folder: Path, began: str) -> dict[str, Any]:
    """In the process that is measured: the parts until the first step has ended."""
    clock = Clock(time.time() if began == WAITS else float(began))
    clock.turn_to("imports")
    from alignment_core.lean_imports import lean_imports
    from alignment_core.quiet import silence_imports, silence_progress_bars

    silence_imports()
    with lean_imports():
        from alignment_core.alignment import align
        from alignment_core.families.source import ModelFolder
        from alignment_core.load import networks
    from alignment_core.spec import JobSpec

    if began == WAITS:
        sys.stdout.write("\n")
        sys.stdout.flush()
        clock = Clock(float(sys.stdin.readline()), time.process_time())
    clock.turn_to("rest")
    silence_progress_bars()
    networks.load_model = clock.timed("weights", networks.load_model)
    ModelFolder.fingerprint = clock.timed("hashes", ModelFolder.fingerprint)
    spec = JobSpec.model_validate_json(spec_path.read_bytes())
    for event in align(spec, folder / "work", cache_dir=folder / "cache"):
        match event.type:
            case "model_loaded":
                clock.turn_to("data")
            case "phase_changed" if event.phase == "training":
                clock.turn_to("first step")
            case "step_completed":
                clock.turn_to("rest")
                break
    return {name: {"seconds": wall, "cpu_seconds": cpu} for name, (wall, cpu) in clock.parts.items()}


def spec_of(model: Path, pairs: Path, adapter: str, batch_size: int) -> dict[str, Any]:
    return {
        "model": {"type": "local", "path": str(model)},
        "method": {
            "type": "diffusion_dpo",
            "dataset": {"type": "local", "path": str(pairs)},
            "transform": {"resolution": 64},
        },
        "adapter": {"type": adapter},
        "training": {"start_checks": False, "steps": 1, "batch_size": batch_size, "gradient_accumulation_steps": 1},
        "resources": {"num_cpu_threads": 1},
    }


def measured(adapter: str, model: Path, pairs: Path, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The first start with a cache of its own, and one after it."""
    spec = folder / f"{adapter}.json"
    spec.write_text(json.dumps(spec_of(model, pairs, adapter, 1)))
    for state in ("cold", "warm", WAITS):
        with tempfile.TemporaryDirectory(dir=folder) as work:
            Path(work, "cache").symlink_to(folder, target_is_directory=True)
            yield state, json.loads(_said_by_a_process(spec, work, waits=state == WAITS))


def _said_by_a_process(spec: Path, folder: str, *, waits: bool) -> str:
    began = WAITS if waits else repr(time.time())
    command = [sys.executable, "-m", "benchmarks.start", "--measure", str(spec), folder, began]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if waits:
            process.stdout.readline()
            process.stdin.write(f"{time.time()!r}\n")
            process.stdin.flush()
        return process.stdout.read().splitlines()[-1]


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.measure:
        spec, folder, began = arguments.measure
        sys.stdout.write(json.dumps(started(Path(spec), Path(folder), began)) + "\n")
        return
    from benchmarks.speed import save
    from benchmarks.speed_plot import draw_start

    found = {"size": arguments.size, "rows": list(_rows(arguments.size, arguments.adapters))}
    save(found, arguments.out.with_suffix(".json"))
    draw_start(found, arguments.out.with_suffix(".svg"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=Path("start"), help="of JSON and plot, without suffix")
    parser.add_argument("--size", choices=("tiny", "sd15"), default="tiny")
    parser.add_argument("--adapters", nargs="*", choices=ADAPTERS, default=["lora"])
    parser.add_argument("--measure", nargs=3, metavar=("SPEC", "FOLDER", "BEGAN"), help=argparse.SUPPRESS)
    return parser


def _rows(size: str, adapters: list[str]) -> Iterator[dict[str, Any]]:
    from benchmarks.step.random_models import save_model, save_pairs
    from benchmarks.step.sizes import SIZES

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, pairs = save_model(SIZES[size], folder / "model"), save_pairs(SIZES["tiny"], folder / "pairs.parquet")
        for adapter in adapters:
            cache = folder / f"{adapter}-cache"
            cache.mkdir()
            for state, parts in measured(adapter, model, pairs, cache):
                row = {"adapter": adapter, "state": state, "parts": parts}
                sys.stdout.write(_line(row) + "\n")
                sys.stdout.flush()
                yield row


def _line(row: dict[str, Any]) -> str:
    parts = row["parts"]
    seconds, cpu = (sum(part[key] for part in parts.values()) for key in ("seconds", "cpu_seconds"))
    split = "  ".join(f"{name} {part['seconds']:.1f} ({part['cpu_seconds']:.1f})" for name, part in parts.items())
    return f"{row['adapter']:5} {row['state']:5} {seconds:6.1f} s, {cpu:5.1f} of CPU:  {split}"


if __name__ == "__main__":
    main()
