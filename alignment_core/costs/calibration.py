"""What an estimate of time is worth: bounds that hold four in five jobs, from how long those of the same shape took over what was expected.

Of n jobs in any order the next one lies with equal chance in each of the n + 1 places between them, whatever the distribution is. So the
bounds are the ratios at a tenth and at nine tenths of n + 1 (conformal prediction, Vovk, Gammerman & Shafer 2005), between neighbours in logarithms.
"""

import math
from collections.abc import Sequence

FEWEST = 9  # below, the outermost two hold less than four in five
MOST = 50  # the latest: rates are learnt meanwhile, and old ratios say less
OUTSIDE = 0.1  # on each side


def bounds_of(ratios: Sequence[float]) -> tuple[float, float] | None:
    """Of true over expected seconds, for the next job; None of too few."""
    logs = sorted(math.log(ratio) for ratio in ratios if ratio > 0)
    if len(logs) < FEWEST:
        return None
    place = OUTSIDE * (len(logs) + 1)
    return math.exp(_at(logs, place)), math.exp(_at(logs, len(logs) + 1 - place))


def _at(ordered: Sequence[float], place: float) -> float:
    """Between the values at the places, counted from 1."""
    below = min(max(math.floor(place), 1), len(ordered) - 1)
    return ordered[below - 1] + (place - below) * (ordered[below] - ordered[below - 1])
