"""How fast a run trains and what it takes, measured while it does: time by the clock, FLOPs counted once, peaks of memory.

Peaks of cards are the vendors' figures for dense half-precision products with float32 sums (data sheets), without which there is no MFU.
"""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

from alignment_core.actors.actors import Actors
from alignment_core.events import Throughput
from alignment_core.protocols import Method, Remembering
from alignment_core.stopwatch import Stopwatch

B = TypeVar("B")

GIB = 2**30
PEAK_TFLOPS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10": 125.0,
    "V100": 125.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}


def peak_tflops(device_name: str) -> float | None:
    """The peak of a card by the name that its driver gives it; None for one that is not in the table."""
    return next((peak for name, peak in PEAK_TFLOPS.items() if name in device_name), None)


def flops_of(method: Method[Any], actors: Actors, batch: Any, dtype: torch.dtype) -> float | None:
    """FLOPs an example of one forward and backward of a batch, whose gradients are dropped; None where none are counted.

    In a pass of its own: under the counter kernels round otherwise, and a run that goes on would not be the one that was never cut.
    """
    if isinstance(method, Remembering):
        method, batch = method.asking_anew(batch)
    with actors.computing_in(dtype), FlopCounterMode(display=False) as counter:  # a recording would not be seen
        loss = method.loss(actors, batch).per_example
        loss.mean().backward()
    for parameter in actors.trainable().values():
        parameter.grad = None
    return counter.get_total_flops() / len(loss) or None


@dataclass
class Meter:
    """Seconds of training, of waiting for batches and of saving, since the last time that it was read."""

    num_examples: int  # in an optimiser step of all processes
    num_processes: int
    device: torch.device
    flops_per_example: float | None = None
    steps: int = 0
    training_seconds: float = 0.0
    waiting_seconds: float = 0.0
    saving_seconds: float = 0.0
    waiting: Stopwatch = field(
        default_factory=Stopwatch, init=False
    )  # that of the first batch too, which steps leave out
    last: Throughput | None = field(default=None, init=False)

    def timed(self, batches: Iterator[B]) -> Iterator[B]:
        """The same batches; how long each was waited for is added up."""
        while True:
            started = self.waiting.seconds
            with self.waiting.running():
                batch = next(batches, None)
            self.waiting_seconds += self.waiting.seconds - started
            if batch is None:
                return
            yield batch

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Training stands still inside."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.saving_seconds += time.monotonic() - started

    def step(self, seconds: float) -> None:
        """An optimiser step took so long, its batches included."""
        self.steps, self.training_seconds = self.steps + 1, self.training_seconds + seconds

    def read(self) -> Throughput:
        """What was measured since it was read last; counting begins anew."""
        seconds, all_seconds = self.training_seconds, self.training_seconds + self.saving_seconds
        rate, flops = self.num_examples * self.steps / seconds, self.flops_per_example
        tflops = None if flops is None else flops * rate / 1e12
        peak = peak_tflops(torch.cuda.get_device_name(self.device)) if self.device.type == "cuda" else None
        self.last = Throughput(
            num_steps=self.steps,
            examples_per_second=rate,
            tflops_per_second=tflops,
            mfu=None if tflops is None or peak is None else tflops / peak / self.num_processes,
            peak_device_gib=torch.cuda.max_memory_allocated(self.device) / GIB if self.device.type == "cuda" else None,
            peak_host_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB,
            waiting_share=min(1.0, self.waiting_seconds / all_seconds),
            saving_share=self.saving_seconds / all_seconds,
        )
        self.steps, self.training_seconds, self.waiting_seconds, self.saving_seconds = 0, 0.0, 0.0, 0.0
        return self.last
