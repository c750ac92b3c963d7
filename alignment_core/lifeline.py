"""What ends a run with those it belongs to: the end of stdin with its parent, the kernel with its launcher."""

import ctypes
import os
import signal
import stat
import sys
import threading
import time

HANGS_AFTER_SECONDS = 600.0  # after the end of stdin: longer than any step and its checkpoint take
PR_SET_PDEATHSIG = 1


def stop_when_asked(exit_code: int) -> threading.Event:
    """An event that SIGTERM, SIGINT and the end of a piped stdin set; `exit_code` is for a process that hangs after it.

    Under a worker, its guard keeps a shorter time: the lease.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_stop_at_end_of_stdin, args=(stop, exit_code), daemon=True).start()
    return stop


def _stop_at_end_of_stdin(stop: threading.Event, exit_code: int) -> None:
    while os.read(0, 4096):
        pass
    stop.set()
    time.sleep(HANGS_AFTER_SECONDS)
    os._exit(exit_code)  # a hung GPU with nobody left to kill this process would keep it for ever


def end_with_launcher() -> None:
    """Have the kernel kill this process, if it is one of several, when its launcher ends (Linux, prctl(2)).

    torchrun gives each rank a session of its own: no signal to a group reaches it, and without its launcher it would wait
    for ranks that nobody starts again.
    """
    if sys.platform == "linux" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
