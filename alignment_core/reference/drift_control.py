"""The largest alpha that keeps a moving reference within its budget of drift, found by measuring candidates.

    f(alpha) = drift of (1-alpha) ref + alpha policy,    the largest alpha <= alpha_max with f(alpha) <= delta

For outputs that are linear in the weights `eps_dist` is a parabola in alpha, and three measurements give its root. Networks are
not linear, so the root is measured too, between an alpha that was inside the budget and one beyond it, until they are close.
Only what was measured inside is ever taken. A function of its arguments: every process, and a resumed run, finds the same. Ours.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_MEASUREMENTS = 10  # candidates of one update, at most; linear outputs need three
TOLERANCE = 0.02  # near enough: this share of the budget left, or this share of alpha between inside and beyond


@dataclass(frozen=True)
class Candidate:
    """An alpha and the drift that was measured at it."""

    alpha: float
    drift: float


def largest_alpha(drift_of: Callable[[float], float], d_ref: float, delta: float, alpha_max: float) -> Candidate:
    """What an update should take; alpha 0 leaves the reference as it is.

    Where the reference is beyond its budget and no alpha is within, the candidate of least drift brings it nearer.
    """
    seen = [Candidate(0.0, d_ref), Candidate(alpha_max, drift_of(alpha_max))]
    while len(seen) <= MAX_MEASUREMENTS and (alpha := _next_alpha(seen, delta)) is not None:
        seen = sorted([*seen, Candidate(alpha, drift_of(alpha))], key=lambda candidate: candidate.alpha)
    inside = [candidate for candidate in seen if candidate.drift <= delta]
    return inside[-1] if inside else min(seen, key=_least_first)


def _next_alpha(seen: Sequence[Candidate], delta: float) -> float | None:
    """The next alpha to measure, or None when the largest is found; `seen` is in order of alpha."""
    inside = [place for place, candidate in enumerate(seen) if candidate.drift <= delta]
    if not inside:
        return _towards_the_least(seen)
    if inside[-1] == len(seen) - 1:
        return None
    low, high = seen[inside[-1]], seen[inside[-1] + 1]
    is_at_the_edge = low.alpha > 0 and low.drift >= (1 - TOLERANCE) * delta
    if is_at_the_edge or high.alpha - low.alpha <= TOLERANCE * high.alpha:
        return None
    return _between(low, high, seen, delta)


def _between(low: Candidate, high: Candidate, seen: Sequence[Candidate], delta: float) -> float:
    """Where the drift should be just inside the budget, by one guess after the other; the middle where a guess is no use."""
    aim = (1 - TOLERANCE / 2) * delta
    match len(seen) % 3:
        case _ if len(seen) == 2:
            guess = _on_chord(low, high, aim)
        case 0:
            guess = _on_parabola(_around(low, high, seen), aim)
        case 1:
            guess = _on_power_law(low, high, aim)
        case _:
            guess = None
    return guess if guess is not None and low.alpha < guess < high.alpha else (low.alpha + high.alpha) / 2


def _on_chord(low: Candidate, high: Candidate, aim: float) -> float | None:
    """Where the chord of the root of the drift, a distance, is at the aim: a distance is convex, so the drift is at most that."""
    if not 0 <= low.drift < aim < high.drift < math.inf:
        return None
    near, far, wanted = low.drift**0.5, high.drift**0.5, aim**0.5
    return low.alpha + (high.alpha - low.alpha) * (wanted - near) / (far - near)


def _on_power_law(low: Candidate, high: Candidate, aim: float) -> float | None:
    """Where the power of alpha through low and high is at the aim: from the initial model on, drift often is one."""
    if not 0 < low.drift < aim < high.drift < math.inf or low.alpha == 0:
        return None
    exponent = math.log(high.drift / low.drift) / math.log(high.alpha / low.alpha)
    return low.alpha * (aim / low.drift) ** (1 / exponent)


def _around(low: Candidate, high: Candidate, seen: Sequence[Candidate]) -> tuple[Candidate, Candidate, Candidate]:
    """Low, high and the nearest other one."""
    others = [candidate for candidate in seen if candidate not in (low, high)]
    return low, high, min(others, key=lambda other: min(abs(other.alpha - low.alpha), abs(other.alpha - high.alpha)))


def _on_parabola(points: Sequence[Candidate], aim: float) -> float | None:
    """The larger alpha at which the parabola through three points rises to the aim."""
    curve = _parabola(points)
    if curve is None:
        return None
    a, b, c = curve
    if abs(a) < 1e-12 * max(abs(b), 1e-300):
        return (aim - c) / b if b > 0 else None
    square = b * b - 4 * a * (c - aim)
    return None if square < 0 else (-b + square**0.5) / (2 * a)


def _towards_the_least(seen: Sequence[Candidate]) -> float | None:
    """Everything is beyond the budget: the middle, then where the parabola around the least drift is lowest, else nearer to it."""
    if len(seen) == 2:
        return (seen[0].alpha + seen[1].alpha) / 2
    place = min(range(len(seen)), key=lambda number: _least_first(seen[number]))
    first = min(max(place - 1, 0), len(seen) - 3)
    points = seen[first : first + 3]
    curve = _parabola(points)
    lowest = -curve[1] / (2 * curve[0]) if curve is not None and curve[0] > 0 else math.nan
    nearest = min(abs(lowest - point.alpha) for point in points)
    if points[0].alpha < lowest < points[-1].alpha and nearest > TOLERANCE * lowest:
        return lowest
    return seen[1].alpha / 4 if place == 0 else None


def _parabola(points: Sequence[Candidate]) -> tuple[float, float, float] | None:
    """Coefficients of alpha^2, alpha and 1 through three points (Newton's divided differences); None where one is no number."""
    if not all(math.isfinite(point.drift) for point in points):
        return None
    one, two, three = points
    first = (two.drift - one.drift) / (two.alpha - one.alpha)
    second = (three.drift - two.drift) / (three.alpha - two.alpha)
    a = (second - first) / (three.alpha - one.alpha)
    b = first - a * (one.alpha + two.alpha)
    return a, b, one.drift - first * one.alpha + a * one.alpha * two.alpha


def _least_first(candidate: Candidate) -> float:
    return candidate.drift if math.isfinite(candidate.drift) else math.inf
