"""How often somebody may try to sign in: so many times a minute from one address, and with one key.

Each process of the API counts for itself: keys hold 256 random bits, so what is limited is the load of guessing and not its
success, and a limit that is a few times higher on a server of a few processes is a limit all the same.
"""

import ipaddress
import threading
import time
from collections.abc import Callable

WINDOW_SECONDS = 60.0
MOST_REMEMBERED = 10_000  # of one minute; the first ones are forgotten before


class SignIns:
    """Tries of this minute, by address and by the beginning of the key."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock, self._lock = limit, clock, threading.Lock()
        self._began, self._tries = clock(), dict[str, int]()

    def seconds_to_wait(self, *subjects: str) -> float:
        """0 for a try that is let through, which is counted for each of the subjects."""
        with self._lock:
            time = self._clock()
            if time - self._began >= WINDOW_SECONDS:
                self._began, self._tries = time, {}
            if any(self._tries.get(subject, 0) >= self._limit for subject in subjects):
                return self._began + WINDOW_SECONDS - time
            for subject in subjects:
                self._tries[subject] = self._tries.pop(subject, 0) + 1
            while len(self._tries) > MOST_REMEMBERED:
                del self._tries[next(iter(self._tries))]
            return 0.0


def network_of(address: str) -> str:
    """Of IPv6 the network that a site gets, of which it has all addresses."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else str(found)
