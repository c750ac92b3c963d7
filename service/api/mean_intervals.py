"""How sure the mean of a model's scores is: Student's t over the prompts, whose seeds are averaged first. Without numpy."""

import math
from collections import defaultdict
from collections.abc import Iterable
from statistics import NormalDist, fmean, stdev

from alignment_core.reports import Interval


def mean_interval(scores: Iterable[tuple[str, float]], confidence: float) -> Interval | None:
    """Of `(prompt, score)` pairs; None with fewer than two prompts, which have no spread."""
    by_prompt: defaultdict[str, list[float]] = defaultdict(list)
    for prompt, score in scores:
        by_prompt[prompt].append(score)
    means = [fmean(own) for own in by_prompt.values()]
    if len(means) < 2:
        return None
    half = t_quantile((1 + confidence) / 2, len(means) - 1) * stdev(means) / math.sqrt(len(means))
    return Interval(low=fmean(means) - half, high=fmean(means) + half, confidence=confidence)


def t_quantile(probability: float, degrees: int) -> float:
    """The quantile of Student's t: exact for one and two degrees, else Cornish and Fisher's series, Abramowitz and Stegun 26.7.5."""
    if degrees == 1:
        return math.tan(math.pi * (probability - 0.5))
    if degrees == 2:
        centred = 2 * probability - 1
        return centred * math.sqrt(2 / (1 - centred * centred))
    x = NormalDist().inv_cdf(probability)
    terms = (
        x,
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return math.fsum(term / degrees**power for power, term in enumerate(terms))
