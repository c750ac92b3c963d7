"""Paired comparison of two models on the same prompts and seeds: gain, win rate, and how sure we are of them.

Scores are float64 `[prompts, seeds]`. Images of one prompt resemble each other, so prompts are the unit that is
resampled: a prompt's seeds are averaged first (cluster bootstrap).
"""

import math
import warnings

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator

from alignment_core.lean_imports import let_in
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


def bca_interval(values: Scores, num_resamples: int, confidence: float, generator: Generator) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of the mean of `values`, with prompts resampled. Efron (1987).

    Where the prompts' gains are skewed it covers nearer to what it says than the percentiles do. Values that are all equal have
    nothing to correct: their interval is a point.
    """
    let_in("scipy")
    from scipy.stats import bootstrap

    means = values.mean(axis=1)
    if len(means) < 2 or means.min() == means.max():
        return bootstrap_interval(values, num_resamples, confidence, generator)
    rows_at_once = max(1, _MAX_DRAWS // len(means))
    with warnings.catch_warnings(action="ignore"):  # that resamples are alike, as the shares of two prompts are
        found = bootstrap(
            (means,),
            np.mean,
            n_resamples=num_resamples,
            confidence_level=confidence,
            method="BCa",
            batch=rows_at_once,
            vectorized=True,
            rng=generator,
        ).confidence_interval
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return bootstrap_interval(values, num_resamples, confidence, generator)
    return Interval(low=float(found.low), high=float(found.high), confidence=confidence)


def prompts_won(base: Scores, policy: Scores) -> float:
    """On how many prompts the policy's mean score over the seeds is higher; a tie counts as half.

    Prompts are independent trials and the seeds of one are not, so this is what Wilson's interval may be told.
    """
    return float(wins(base.mean(axis=1, keepdims=True), policy.mean(axis=1, keepdims=True)).sum())


def paired_p_value(values: Scores) -> float | None:
    """Two-sided p-value of the mean gain being zero: Student's paired t-test with prompts as the unit.

    None with fewer than two prompts, or when every prompt gains the same, which is no sample of anything.
    """
    means = values.mean(axis=1)
    if len(means) < 2 or (spread := float(means.std(ddof=1))) <= 1e-12 * max(1.0, float(np.abs(means).max())):
        return None
    return two_sided_p(float(means.mean()) / spread * math.sqrt(len(means)), len(means) - 1)


def two_sided_p(t: float, degrees: int) -> float:
    """P(|T| >= |t|) of Student's t: I_x(degrees/2, 1/2) with x = degrees / (degrees + t^2). DLMF 8.17."""
    return _incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t), t * t / (degrees + t * t))


def _incomplete_beta(a: float, b: float, x: float, complement: float) -> float:
    """The regularised I_x(a, b); `complement` is 1 - x, given apart because it may be far smaller than x's rounding."""
    if x <= 0 or complement <= 0:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # there the fraction converges slowly, and that of the mirror image fast
        return 1 - _incomplete_beta(b, a, complement, x)
    log_front = a * math.log(x) + b * math.log(complement) - math.log(a)
    log_front += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return min(1.0, math.exp(log_front) / _beta_fraction(a, b, x))


def _beta_fraction(a: float, b: float, x: float, num_terms: int = 400) -> float:
    """The continued fraction 1 + d_1/(1 + d_2/(1 + ...)) of DLMF 8.17.22, from its end: 400 terms are far enough."""
    value = 1.0
    for term in range(num_terms, 0, -1):
        m = term // 2
        if term % 2 == 0:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        value = 1 + d / value
    return value
