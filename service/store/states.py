"""The states of a job and the one table of what may follow what.

`validating -> queued -> starting -> running -> finalizing -> succeeded`, with pausing, paused, cancelling, cancelled and
failed beside it.
"""

from typing import Literal, get_args

JobState = Literal[
    "validating",
    "queued",
    "starting",
    "running",
    "finalizing",
    "pausing",
    "paused",
    "cancelling",
    "succeeded",
    "cancelled",
    "failed",
]
Verb = Literal["cancel", "pause", "resume", "claim", "begin", "finalize", "succeed", "stop", "fail", "give_back"]

STATES: tuple[JobState, ...] = get_args(JobState)
TERMINAL: tuple[JobState, ...] = ("succeeded", "cancelled", "failed")
HELD: tuple[JobState, ...] = ("starting", "running", "finalizing", "pausing", "cancelling")
"""A worker holds the job under a lease; only in these states does its attempt number open any door."""

TRANSITIONS: dict[Verb, dict[JobState, JobState]] = {
    # what a user asks for; asking twice is no error
    "cancel": {
        "validating": "cancelled",
        "queued": "cancelled",
        "paused": "cancelled",
        "cancelled": "cancelled",
        "starting": "cancelling",
        "running": "cancelling",
        "finalizing": "cancelling",
        "pausing": "cancelling",
        "cancelling": "cancelling",
    },
    "pause": {
        "queued": "paused",
        "paused": "paused",
        "starting": "pausing",
        "running": "pausing",
        "pausing": "pausing",
    },
    "resume": {"paused": "queued"},
    # what a worker does
    "claim": {"queued": "starting"},
    "begin": {"starting": "running"},
    "finalize": {"running": "finalizing"},
    # a run may end before it hears that it should stop: then it has succeeded
    "succeed": dict.fromkeys(HELD, "succeeded"),
    "stop": {"pausing": "paused", "cancelling": "cancelled"},
    "fail": {state: "failed" for state in STATES if state not in TERMINAL},
    # the worker leaves, or is lost
    "give_back": {
        "starting": "queued",
        "running": "queued",
        "finalizing": "queued",
        "pausing": "paused",
        "cancelling": "cancelled",
    },
}


class InvalidTransition(Exception):  # noqa: N818 - a state of affairs, read as one
    """The job's state forbids what was asked of it."""

    def __init__(self, state: JobState, verb: str) -> None:
        super().__init__(f"a job that is {state} cannot {verb}")
        self.state = state
        self.verb = verb


def after(state: JobState, verb: Verb) -> JobState:
    """The state that `verb` leads to; raises `InvalidTransition` where the table has no entry."""
    try:
        return TRANSITIONS[verb][state]
    except KeyError:
        raise InvalidTransition(state, verb) from None
