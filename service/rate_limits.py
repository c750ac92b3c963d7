"""A quota in headers: RateLimit and RateLimit-Policy, after the IETF's draft.

draft-ietf-httpapi-ratelimit-headers-10, "RateLimit header fields for HTTP": a policy is a name with its quota `q` and its window
`w` in seconds, a limit is the name of a policy with what remains `r` and in how many seconds it is restored, `t`.
"""

import math
from datetime import UTC, datetime

from service.store.limits import Standing

WINDOW_SECONDS = {"submits": 3600}


def headers_of(standing: Standing) -> dict[str, str]:
    """The two fields for a quota that is counted in whole numbers."""
    assert standing.limit is not None
    name, window = standing.name, WINDOW_SECONDS.get(standing.name)
    policy = f'"{name}";q={int(standing.limit)}' + ("" if window is None else f";w={window}")
    left = f'"{name}";r={max(0, int(standing.limit - standing.used))}'
    restored = "" if standing.resets_at is None else f";t={seconds_until(standing.resets_at)}"
    return {"RateLimit-Policy": policy, "RateLimit": left + restored}


def seconds_until(time: datetime) -> int:
    return max(1, math.ceil((time - datetime.now(UTC)).total_seconds()))
