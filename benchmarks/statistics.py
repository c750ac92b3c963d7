"""Means over seeds, paired tests between rows, and Holm's correction. The seed is the unit of every test."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with the half width of its 95 % t interval; the width is 0 where all values are equal."""

    value: float
    half_width: float


@dataclass(frozen=True)
class PairedTest:
    """What one row gains over another on the same seeds: t interval, and two-sided p of the paired t-test."""

    difference: Mean
    p_value: float


def mean_of(values: Sequence[float]) -> Mean:
    """Mean and 95 % t interval of at least two values."""
    array = np.asarray(values, dtype=np.float64)
    half = stats.t.ppf(0.975, len(array) - 1) * stats.sem(array)
    return Mean(float(array.mean()), float(half))


def paired_test(better: Sequence[float], than: Sequence[float]) -> PairedTest:
    """Compare rows whose values belong to the same seeds in the same order."""
    difference: list[float] = np.subtract(better, than).tolist()
    if np.ptp(difference) <= 1e-12:  # no spread to test against, but that of rounding
        return PairedTest(mean_of(difference), 1.0 if abs(difference[0]) <= 1e-12 else 0.0)
    return PairedTest(mean_of(difference), float(stats.ttest_rel(better, than).pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): p values that may be read together."""
    corrected, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = running
    return corrected
