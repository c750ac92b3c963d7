"""Seconds by phase as a row of shares."""

from collections.abc import Mapping
from typing import NamedTuple

NARROWEST = 0.5  # percent: what took next to nothing is still seen


class Share(NamedTuple):
    phase: str
    seconds: float
    percent: float


def phases(seconds: Mapping[str, float]) -> list[Share]:
    """The phases that took any time, in the order of the job, with their shares of all of it; of several attempts the sums."""
    total = sum(seconds.values())
    if not total:
        return []
    return [Share(name, value, max(NARROWEST, 100 * value / total)) for name, value in seconds.items() if value > 0]
