"""The process between a worker and its training: ends the training before the lease ends, whatever else hangs.

    python -P -m worker.guard UNTIL COMMAND...        UNTIL and beats are readings of `service.store.clock.host_seconds`

It starts COMMAND and watches three things. Its stdin brings the worker's beats, each the time until which the training may
now run; when that time comes, every process that the command started is killed. A line in braces is for the command, which waits for
its job, and is handed on to its stdin. The end of stdin means that the worker is
gone: the command is asked to save and leave, and still has no longer than the last beat said. SIGTERM asks it to save and
leave too, and SIGUSR1 ends it now.

A process of its own, as a thread of the training process would wait for the interpreter while a step hangs in it. It is the
adoptive parent of all that the command leaves behind: the ranks of a launcher sit in sessions of their own, and a signal to
a group does not reach them. When this process is killed itself, the kernel kills the command.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import psutil

from service.store.clock import host_seconds

EXIT_LEASE_ENDED = 76
LOOK_EVERY_SECONDS = 1.0  # select's clock stands still while the machine sleeps
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main(arguments: Sequence[str]) -> int:
    until, *command = arguments
    if float(until) <= host_seconds():  # the lease ended before the command could start
        return EXIT_LEASE_ENDED
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    guard = Guard(command, float(until))
    code = guard.watch()
    guard.end_all()
    return code


class Guard:
    """The command and the time until which it may run."""

    def __init__(self, command: Sequence[str], until: float) -> None:
        self._until = until
        self._pending = b""
        self._wakeups = _wakeups()
        self._inputs = [0, self._wakeups]
        guard_pid = os.getpid()
        self._command = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: _die_with(guard_pid),
        )

    def watch(self) -> int:
        """The exit code of the command, or of its end by force."""
        while (left := self._until - host_seconds()) > 0:
            ready, _, _ = select.select(self._inputs, [], [], min(left, LOOK_EVERY_SECONDS))
            if 0 in ready:
                self._hear()
            signals = os.read(self._wakeups, 4096) if self._wakeups in ready else b""
            if signal.SIGUSR1 in signals:
                return -signal.SIGKILL
            if signal.SIGTERM in signals:
                self._ask_to_leave()
            if (code := self._command.poll()) is not None:
                return code
        return EXIT_LEASE_ENDED

    def _hear(self) -> None:
        """Take what the worker said: the last whole time counts, and a line that is neither time nor job ends everything here."""
        received = os.read(0, 65_536)
        *lines, self._pending = (self._pending + received).split(b"\n")
        for line in lines:
            if line.startswith(b"{"):
                self._hand_on(line)
            else:
                self._until = float(line)
        if not received:
            self._inputs.remove(0)
            self._ask_to_leave()

    def _hand_on(self, job: bytes) -> None:
        """It fits into the pipe (`worker.warm`), so a command that does not read it holds up nothing here."""
        assert self._command.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, which the worker finds as it hears no answer
            os.write(self._command.stdin.fileno(), job + b"\n")

    def _ask_to_leave(self) -> None:
        """SIGTERM to the command's group, and the end of the stdin that its processes share."""
        assert self._command.stdin is not None
        self._command.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._command.pid, signal.SIGTERM)

    def end_all(self) -> None:
        """Kill everything that descends from the command, until nothing of it is left."""
        while descendants := psutil.Process().children(recursive=True):
            for process in descendants:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            _reap()
            time.sleep(0.002)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _wakeups() -> int:
    """A descriptor on which the numbers of the signals arrive that this process was sent."""
    receiving, sending = os.pipe()
    os.set_blocking(sending, False)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(sending, warn_on_full_buffer=False)
    return receiving


def _die_with(parent_pid: int) -> None:
    """Between fork and exec: have the kernel kill this process when its parent ends."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, int(value), 0, 0, 0)


def _leave(code: int) -> None:
    """End as the command did: by the same signal, or with the same exit code."""
    if code < 0:
        with contextlib.suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    _leave(main(sys.argv[1:]))
