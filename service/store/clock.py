"""The one clock of a host that only runs forward, for how long something lasted or may last.

Its readings mean the same in every process of the host until it restarts. It counts the time that the machine slept,
since the rest of the world, and whoever waits for a lease there, did not sleep.
"""

import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # macOS's MONOTONIC counts sleep, Linux's does not


def host_seconds() -> float:
    """Seconds since the host started."""
    return time.clock_gettime(_CLOCK)
