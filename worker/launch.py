"""The command that starts a job's training: one process, or as many as the job asks for."""

import sys
from collections.abc import Sequence

PROCESSES = "{processes}"  # in a command of the operator's


def launched(trainer: Sequence[str], processes: int) -> list[str]:
    """`trainer` in this many processes.

    An operator's own command is told how many where it asks, and is otherwise left as it is: it may start them itself.
    """
    if any(PROCESSES in part for part in trainer):
        return [part.replace(PROCESSES, str(processes)) for part in trainer]
    if processes == 1 or trainer[:4] != ALONE:
        return list(trainer)
    # standalone: a free port, so that two jobs of a host do not meet
    return [*ALONE[:3], "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", ALONE[3]]


# -P: a training process runs in the job's work folder, which must not be a place to import from
ALONE = (sys.executable, "-P", "-m", "alignment_core")
