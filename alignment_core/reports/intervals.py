"""Confidence intervals, and p-values that are looked at together."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

from alignment_core.reports.base import ReportBase

IntervalMethod = Literal["percentile", "bca"]
"""Percentile bootstrap, or bias-corrected and accelerated (Efron 1987)."""


class Interval(ReportBase):
    low: float
    high: float
    confidence: float


def wilson_interval(num_wins: float, num_trials: int, confidence: float) -> Interval:
    """Wilson's score interval of a share; a tie counts as half a win, and `num_trials` is at least 1.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, z2 = num_wins / num_trials, z * z / num_trials
    center = (share + z2 / 2) / (1 + z2)
    half_width = z / (1 + z2) * math.sqrt(share * (1 - share) / num_trials + z2 / (4 * num_trials))
    return Interval(low=max(0.0, center - half_width), high=min(1.0, center + half_width), confidence=confidence)


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
