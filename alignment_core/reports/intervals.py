"""Confidence intervals, and p-values that are looked at together."""

from collections.abc import Sequence
from typing import Literal

from alignment_core.reports.base import ReportBase

IntervalMethod = Literal["percentile", "bca"]
"""Percentile bootstrap, or bias-corrected and accelerated (Efron 1987)."""


class Interval(ReportBase):
    low: float
    high: float
    confidence: float


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of p-values that are looked at together (1979); one that there is none of is none after it.

    The smallest times their number, the next times one less, and so on; none below one that comes before it.
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[index] = largest
    return corrected
