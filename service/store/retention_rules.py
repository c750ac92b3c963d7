"""Which checkpoints of a job stay and which go: one pure function, with a reason for each.

What somebody needs stays whatever the policy says: one that is pinned, a champion, what a fork stands on, and everything of a job
that has not ended. What a job that may be resumed would go on from stays too, until `unfinished_days` after its end, when all goes
of a job that failed or was cancelled. Of the rest, `ttl_days` lets go what is old, and `keep_last` what lies behind the latest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

Stays = Literal[
    "pinned", "champion", "fork", "job_not_ended", "job_may_resume", "no_policy", "last", "best", "result", "young"
]
Goes = Literal["older_than_ttl", "behind_keep_last", "unfinished"]
Need = Literal["champion", "fork"]


@dataclass(frozen=True)
class Policy:
    """None keeps all. `keep_best` counts only beside `keep_last`, which otherwise may let the best one go."""

    keep_last: int | None = None
    keep_best: bool = True
    ttl_days: float | None = None
    unfinished_days: float | None = None

    @property
    def lets_go(self) -> bool:
        return any(one is not None for one in (self.keep_last, self.ttl_days, self.unfinished_days))


@dataclass(frozen=True)
class Pins:
    """What a job has pinned as it is saved: the checkpoints of these steps, and its result."""

    steps: tuple[int, ...] = ()
    result: bool = False


@dataclass(frozen=True)
class Candidate:
    """A checkpoint as a policy sees it; `needed_by` are those outside of its job."""

    id: str
    step: int
    created_at: datetime
    is_best: bool = False
    is_result: bool = False
    is_pinned: bool = False
    needed_by: frozenset[Need] = frozenset()


@dataclass(frozen=True)
class Verdict:
    """`goes` with the reason why, or stays with the first reason why not."""

    id: str
    goes: bool
    reason: Stays | Goes


def verdicts(
    candidates: Sequence[Candidate],
    policy: Policy,
    *,
    has_ended: bool,
    may_resume: bool,
    time: datetime,
    unfinished_since: datetime | None = None,
) -> list[Verdict]:
    """What is to become of all checkpoints of one job, in the order of their steps; `unfinished_since` is when it failed or was cancelled."""
    ordered = sorted(candidates, key=lambda one: one.step)
    last = {one.id for one in ordered[-policy.keep_last :]} if policy.keep_last else set()
    job_needs: Stays | None = "job_not_ended" if not has_ended else "job_may_resume" if may_resume else None
    given_up = has_ended and unfinished_since is not None and _is_past(unfinished_since, policy.unfinished_days, time)
    return [_verdict(one, policy, job_needs, last, time, given_up=given_up) for one in ordered]


def _is_past(since: datetime, days: float | None, time: datetime) -> bool:
    return days is not None and time - since > timedelta(days=days)


def _verdict(
    one: Candidate, policy: Policy, job_needs: Stays | None, last: set[str], time: datetime, *, given_up: bool
) -> Verdict:
    if (needed := _needed_outside(one)) is not None:
        return Verdict(one.id, False, needed)
    if given_up:
        return Verdict(one.id, True, "unfinished")
    if job_needs is not None:
        return Verdict(one.id, False, job_needs)
    if not policy.lets_go:
        return Verdict(one.id, False, "no_policy")
    if _is_past(one.created_at, policy.ttl_days, time):
        return Verdict(one.id, True, "older_than_ttl")
    if policy.keep_last is None:
        return Verdict(one.id, False, "young")
    if one.is_result:
        return Verdict(one.id, False, "result")
    if one.is_best and policy.keep_best:
        return Verdict(one.id, False, "best")
    return Verdict(one.id, False, "last") if one.id in last else Verdict(one.id, True, "behind_keep_last")


def _needed_outside(one: Candidate) -> Stays | None:
    if one.is_pinned:
        return "pinned"
    if "champion" in one.needed_by:
        return "champion"
    return "fork" if "fork" in one.needed_by else None
