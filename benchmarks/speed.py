"""What the benchmarks of speed share: the machine, the median of paired rounds, and how figures are kept."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch

DOCS = Path(__file__).parent.parent / "docs"


def machine() -> dict[str, Any]:
    """Date and hardware, which every figure is of."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "torch": torch.__version__,
        "device": device_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def device_name() -> str:
    """Of the GPU, or of the CPU where there is none."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return models[0] if models else platform.processor() or "CPU"


def paired_ratio(seconds: Sequence[float], base: Sequence[float]) -> float:
    """The median over the rounds of what a round took against its neighbour: a machine's load hits both of a round."""
    return median(one / other for one, other in zip(seconds, base, strict=True))


def save(found: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps({"machine": machine(), **found}, indent=1) + "\n")
