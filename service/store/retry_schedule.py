"""When a delivery that failed is tried again: the waits that Svix, from which the specification grew, publishes.

docs.svix.com/retries: at once, then after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h and 10 h, each from the failure before; 27 h 35 min in all.
"""

from datetime import timedelta

WAITS = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=10),
)
JITTER = 0.2  # of the wait, either way: receivers that came back are not asked by all at once
LONGEST_RETRY_AFTER = timedelta(days=1)


def next_wait(num_failures: int, draw: float, retry_after: timedelta | None = None) -> timedelta | None:
    """The wait after so many failures; None when it is given up. `draw` lies in [0, 1).

    A receiver that says when it wants to be asked again is asked no sooner, and not much later than in a day.
    """
    if num_failures > len(WAITS):
        return None
    wait = WAITS[num_failures - 1] * (1 + JITTER * (2 * draw - 1))
    asked = min(retry_after or timedelta(0), LONGEST_RETRY_AFTER)
    return max(wait, asked * (1 + JITTER * draw))
