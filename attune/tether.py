"""Tie a process to its parent: when the parent dies, the kernel sends the process a signal.

Run as a script, `python -I -S tether.py SIGNAL PARENT_PID COMMAND...`: it asks the kernel (prctl(2), PR_SET_PDEATHSIG)
and then becomes COMMAND, so the pid stays the same. A script and not `preexec_fn`, because Python code that runs between
fork and exec in a process with threads may meet a lock that nobody will release. Outside Linux it only becomes COMMAND.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1


def tethered(command: Sequence[str], death_signal: signal.Signals = signal.SIGTERM) -> list[str]:
    """`command`, so wrapped that its process gets `death_signal` when the thread that starts it ends."""
    return [sys.executable, "-I", "-S", __file__, str(int(death_signal)), str(os.getpid()), *command]


def main(arguments: Sequence[str]) -> None:
    death_signal, parent_pid, *command = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != int(parent_pid):  # the parent died before the kernel was asked
            os.kill(os.getpid(), int(death_signal))
    os.execvp(command[0], command)  # noqa: S606 - becoming the command is the purpose; no shell is involved


if __name__ == "__main__":
    main(sys.argv[1:])
