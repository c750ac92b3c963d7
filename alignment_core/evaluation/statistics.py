"""Paired comparison of two models on the same prompts and seeds: gain, win rate, and how sure we are of them.

Scores are float64 `[prompts, seeds]`. Images of one prompt resemble each other, so prompts are the unit that is
resampled: a prompt's seeds are averaged first (cluster bootstrap).
"""

import math
from statistics import NormalDist

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator

from alignment_core.reports import Interval

Scores = Float[ndarray, "prompts seeds"]

_MAX_DRAWS = 1 << 19  # random indices held at once: 4 MB


def gains(base: Scores, policy: Scores) -> Scores:
    """What the policy gains over the base on each prompt and seed; higher is better."""
    return policy - base


def wins(base: Scores, policy: Scores) -> Scores:
    """1 where the policy scores higher, 0.5 where both score the same, 0 elsewhere."""
    return np.where(policy > base, 1.0, np.where(policy == base, 0.5, 0.0))


def bootstrap_interval(values: Scores, num_resamples: int, confidence: float, generator: Generator) -> Interval:
    """Percentile bootstrap interval of the mean of `values`, with prompts resampled.

    A single prompt has nothing to resample: its interval is a point and says nothing.
    """
    means = values.mean(axis=1)
    num_prompts = len(means)
    rows_at_once = max(1, _MAX_DRAWS // num_prompts)
    resampled = np.empty(num_resamples)
    for start in range(0, num_resamples, rows_at_once):
        rows = min(rows_at_once, num_resamples - start)
        drawn = generator.integers(num_prompts, size=(rows, num_prompts))
        resampled[start : start + rows] = means[drawn].mean(axis=1)
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(low=float(low), high=float(high), confidence=confidence)


def wilson_interval(num_wins: float, num_trials: int, confidence: float) -> Interval:
    """Wilson's score interval of a share; a tie counts as half a win. Wilson (1927)."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, z2 = num_wins / num_trials, z * z / num_trials
    center = (share + z2 / 2) / (1 + z2)
    half_width = z / (1 + z2) * math.sqrt(share * (1 - share) / num_trials + z2 / (4 * num_trials))
    return Interval(low=max(0.0, center - half_width), high=min(1.0, center + half_width), confidence=confidence)


def win_rate_interval(won: Scores, num_resamples: int, confidence: float, generator: Generator) -> Interval:
    """Interval of the win rate: Wilson with one seed a prompt, else the bootstrap, as seeds of a prompt are no trials."""
    if won.shape[1] == 1:
        return wilson_interval(float(won.sum()), len(won), confidence)
    return bootstrap_interval(won, num_resamples, confidence, generator)
