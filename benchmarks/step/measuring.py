"""Time and memory of turns. On a CPU time is that of the process: another process on the machine does not change it."""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.living_bytes import LivingBytes


@dataclass(frozen=True)
class Seconds:
    """Of a turn: the median, and the fastest and the slowest."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, turns: list[float]) -> "Seconds":
        return cls(statistics.median(turns), min(turns), max(turns))

    @staticmethod
    def ratio(slow: "Seconds", fast: "Seconds") -> float:
        return slow.median / fast.median


def alternate(
    ours: Callable[[], object], plain: Callable[[], object], *, num_turns: int, num_warm: int
) -> dict[str, Seconds]:
    """Seconds of a turn of each, taken in alternation, so that a machine that slows down slows both."""
    for _ in range(num_warm):
        ours()
    plain()
    taken: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(num_turns):
        for name, turn in (("ours", ours), ("plain", plain)):
            started = clock()
            turn()
            taken[name].append(clock() - started)
    return {name: Seconds.of(turns) for name, turns in taken.items()}


def clock() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


KINDS = {
    "convolution": ("conv",),
    "attention": ("scaled_dot_product", "flash_attention"),
    "matrix products": ("addmm", "aten::mm", "bmm", "linear", "matmul"),
    "norms": ("norm",),
    "optimizer": ("optimizer",),
}


def split_of(turn: Callable[[], object]) -> dict[str, float]:
    """The shares of a turn's time by kind of operation."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profile:
        turn()
    spent: dict[str, float] = {}
    for event in profile.key_averages():
        own = event.self_device_time_total if torch.cuda.is_available() else event.self_cpu_time_total
        kind = next((name for name, parts in KINDS.items() if any(part in event.key.lower() for part in parts)), "rest")
        spent[kind] = spent.get(kind, 0.0) + own
    total = sum(spent.values()) or 1.0
    return {name: round(value / total, 3) for name, value in sorted(spent.items(), key=lambda item: -item[1])}


@dataclass(frozen=True)
class Peak:
    """Bytes at the highest point: of the process above its imports, and of tensors; on a GPU what is allocated is both."""

    process: int
    tensors: int


def peak_of_turns(turn: Callable[[], object], num: int) -> Peak:
    """Over `num` turns; tensors are counted in one more, as counting takes memory."""
    turn()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")
    for _ in range(num):
        turn()
    if torch.cuda.is_available():
        return Peak(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_allocated())
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return Peak(int(line.split()[1]) * 1024 - IMPORTS, _living_bytes(turn))


def _living_bytes(turn: Callable[[], object]) -> int:
    gc.collect()
    with LivingBytes() as meter:
        for one in gc.get_objects():
            if issubclass(type(one), torch.Tensor):  # `isinstance` would ask objects that warn
                meter.count(one)
        turn()
    return meter.peak


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 if Path("/proc/self/statm").exists() else 0


IMPORTS = _resident()
