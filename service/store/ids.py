"""Prefixed ids that sort by the time they were made: `job_` and the 26 characters of a ULID, in lower case.

A ULID (github.com/ulid/spec) is 48 bits of Unix milliseconds and 80 random bits in Crockford's base 32.
"""

import re
import secrets
import threading
import time
from typing import Literal

Prefix = Literal[
    "job",
    "eval",
    "vfy",
    "cand",
    "img",
    "lab",
    "ds",
    "wts",
    "ps",
    "upl",
    "ckpt",
    "exp",
    "psh",
    "evt",
    "proj",
    "key",
    "ses",
    "lks",
    "smp",
    "aud",
    "act",
    "swp",
    "prm",
    "att",
    "whk",
    "dlv",
]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_BITS = 80


_ID = re.compile(r"^[a-z]{2,4}_[0-9a-z]{26}$")


def is_id(text: str) -> bool:
    """Whether it has the form of an id; what has another is no id of ours, and no question for the database."""
    return _ID.match(text) is not None


class _Clock:
    """The last ULID of this process: one made in the same millisecond, or after the clock went back, is one larger."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        with self._lock:
            fresh = (time.time_ns() // 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
            same_millisecond = fresh >> _RANDOM_BITS <= self._last >> _RANDOM_BITS
            self._last = self._last + 1 if same_millisecond else fresh
            return self._last


_clock = _Clock()


def new_id(prefix: Prefix) -> str:
    """A new id, larger than every id of the same prefix that this process made before."""
    value = _clock.next()
    return f"{prefix}_" + "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))
