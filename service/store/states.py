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
Verb = Literal[
    "cancel", "pause", "resume", "claim", "begin", "finalize", "succeed", "stop", "fail", "give_back", "suspend"
]

STATES: tuple[JobState, ...] = get_args(JobState)
TERMINAL: tuple[JobState, ...] = ("succeeded", "cancelled", "failed")
"""Nothing more happens by itself. `succeeded` and `cancelled` are for good; a failure that may pass can be resumed."""
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
    "resume": {"paused": "queued", "failed": "queued"},  # a failed one if its error is retryable
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
    # what the run needs of its surroundings stays away: nothing is wrong with the job, so it can go on later
    "suspend": {
        "starting": "paused",
        "running": "paused",
        "finalizing": "paused",
        "pausing": "paused",
        "cancelling": "cancelled",
    },
}


class InvalidTransition(Exception):  # noqa: N818 - a state of affairs, read as one
    """The job's state forbids what was asked of it; `reason` says what else does."""

    def __init__(self, state: JobState, verb: str, reason: str | None = None) -> None:
        super().__init__(f"a job that is {state} cannot {verb}" + (f": {reason}" if reason else ""))
        self.state = state
        self.verb = verb
        self.reason = reason


def after(state: JobState, verb: Verb) -> JobState:
    """The state that `verb` leads to; raises `InvalidTransition` where the table has no entry."""
    try:
        return TRANSITIONS[verb][state]
    except KeyError:
        raise InvalidTransition(state, verb) from None
