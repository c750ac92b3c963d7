"""The by-timestep table: where on the noise scale the reward signal lives. Ten bins, 0 noisiest, after Kang et al."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alignment_core.events import TimestepBin, TimestepTable
from alignment_core.shapes import PerExample, Timesteps
from alignment_core.timesteps.weights import PerBin, bin_of, bounds_of

NUM_BINS = 10
MEANS = ("reward_magnitude", "implicit_accuracy", "margin")


@dataclass(frozen=True)
class Examples:
    """What each example said, on the CPU: its timestep, the method's metrics, the signal and w(t)."""

    timesteps: Timesteps
    metrics: dict[str, PerExample]
    signal: PerExample
    weight: PerExample


class TimestepTally:
    """Adds examples up by bin; `since_step` is the step after which it began."""

    def __init__(self, num_timesteps: int, since_step: int = 0) -> None:
        self._num_timesteps = num_timesteps
        self._num_bins = min(NUM_BINS, num_timesteps)
        self._begin(since_step)

    def _begin(self, since_step: int) -> None:
        self._since_step = since_step
        self._count = torch.zeros(self._num_bins, dtype=torch.int64)
        self._sums: dict[str, PerBin] = defaultdict(lambda: torch.zeros(self._num_bins, dtype=torch.float64))

    def add(self, examples: Examples) -> None:
        """Count examples in, in float64."""
        bins = bin_of(examples.timesteps, self._num_bins, self._num_timesteps)
        columns: dict[str, Tensor] = {name: examples.metrics[name] for name in MEANS if name in examples.metrics}
        columns |= {"weight": examples.weight, "signal": examples.signal, "square": examples.signal.double().square()}
        self._count += torch.bincount(bins, minlength=self._num_bins)
        for name, values in columns.items():
            self._sums[name] += torch.bincount(bins, weights=values.double(), minlength=self._num_bins)

    def table(self, split: Literal["training", "validation"], step: int) -> TimestepTable:
        """The table of everything since the last one; begins anew."""
        rows = [self._row(number) for number in range(self._num_bins)]
        table = TimestepTable(step=step, since_step=self._since_step, split=split, bins=rows)
        self._begin(step)
        return table

    def _row(self, number: int) -> TimestepBin:
        count = int(self._count[number])
        means = {name: float(sums[number]) / count for name, sums in self._sums.items()} if count else {}
        first, last = bounds_of(number, self._num_bins, self._num_timesteps)
        return TimestepBin(
            first_timestep=first,
            last_timestep=last,
            count=count,
            reward_magnitude=means.get("reward_magnitude"),
            implicit_accuracy=means.get("implicit_accuracy"),
            margin=means.get("margin"),
            signal_variance=max(0.0, means["square"] - means["signal"] ** 2) if count else None,
            weight=means.get("weight"),
        )
