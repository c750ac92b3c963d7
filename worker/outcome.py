"""What the end of a training's processes means for its job: from its last event, its exit code, and what torchrun says of its ranks."""

import re
import signal as signals

import structlog

from alignment_core.events import Event, RunCompleted, RunFailed, RunStopped
from service.store.records.base import JobError
from worker.guard import EXIT_LEASE_ENDED
from worker.launchers.contract import EXIT_STOPPED, Gang

KILLED = "trainer_killed"
LESS_MEMORY = "Lower training.batch_size or training.transform.resolution, or use a machine with more memory."
# torchrun's report of the ranks that failed first; those that it ended itself because of them are not in it.
_FAILED_RANK = re.compile(r"\brank +: (\d+) \(local_rank: \d+\)\n[^\n]*?exitcode +: -(\d+) ")
_ASKED = (signals.SIGTERM, signals.SIGINT)

log = structlog.get_logger()


class Stopped(Exception):  # noqa: N818 - a state of affairs, read as one
    """The run left before its end without failing: it was asked to, or it was ended from outside."""


def may_follow_from_another(event: Event, processes: int) -> bool:
    """Whether a rank says of itself what another's end has done to it: a connection that broke is no error of the first one's.

    It is known once all have ended, and told then.
    """
    return processes > 1 and isinstance(event, RunFailed) and event.code == "internal_error"


def outcome(gang: Gang, last: Event | None, processes: int) -> JobError | Stopped | None:
    """What the end of the process means: None when the run completed."""
    match last:
        case RunCompleted():
            return None
        case RunFailed() if may_follow_from_another(last, processes) and (killed := _killed_rank(gang, processes)):
            return killed
        case RunFailed():
            return JobError.model_validate(
                last.model_dump(include={"code", "message", "category", "retryable", "hint"})
            )
        case RunStopped():  # a launcher of several processes has an exit code of its own
            return Stopped()
    code = gang.exit_code
    if code == EXIT_LEASE_ENDED:
        log.warning("lease_ended", message="the training was ended before another worker could start it again")
    if gang.stop_requested or gang.kill_requested or code in (EXIT_STOPPED, EXIT_LEASE_ENDED):
        return Stopped()
    if code == -signals.SIGKILL:
        message = "the training process was killed by the system, most likely for lack of memory"
        return JobError(code=KILLED, message=message, category="system", retryable=True, hint=LESS_MEMORY)
    return _killed_rank(gang, processes) or JobError(
        code="trainer_crashed",
        message=f"the training process ended with exit code {code} and no result; its last line: {gang.log.tail(1)}",
        category="system",
        retryable=True,
        hint="The job's log has more lines.",
    )


def is_of_killed(result: JobError | Stopped | None) -> bool:
    return isinstance(result, JobError) and result.code == KILLED


def _killed_rank(gang: Gang, processes: int) -> JobError | None:
    """The error of a run of which a signal ended a process, as torchrun's report says; None where it names none."""
    found = [(int(rank), int(number)) for rank, number in _FAILED_RANK.findall(gang.log.tail())]
    ended = [(rank, number) for rank, number in found if number not in _ASKED]
    if processes == 1 or not ended:
        return None
    rank, number = max(
        ended, key=lambda one: one[1] == signals.SIGKILL
    )  # what aborts when another is gone comes after it
    name = signals.Signals(number).name if number in set(signals.Signals) else f"signal {number}"
    why = ", most likely for lack of memory" if number == signals.SIGKILL else ""
    return JobError(
        code=KILLED,
        message=f"process {rank + 1} of {processes} (rank {rank}) was killed by {name}{why}; the others ended with it",
        category="system",
        retryable=True,
        hint=LESS_MEMORY if number == signals.SIGKILL else "The job's log has more lines.",
    )
