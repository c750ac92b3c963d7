"""Runs `python -m attune` in a process of its own for each request, forked from one that has imported it already.

    python command_server.py SOCKET

A process that begins from nothing spends most of its time importing. Whoever connects writes what to run as one line of
JSON, {"arguments", "cwd", "environment", "stdout", "stderr", "timeout_seconds"}, and reads the exit status. The server
ends with its standard input.
"""

import json
import os
import runpy
import select
import signal
import socket
import sys
from typing import Any

import attune.cli  # noqa: F401  what the commands need not import again

NOTHING = os.open(os.devnull, os.O_RDONLY)


def serve(path: str) -> None:
    """Accept for ever; returns in a process that has been forked for a command, and where the input has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            with connection:
                if os.fork():
                    continue
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                answer(connection)
                return


def answer(connection: socket.socket) -> None:
    """Fork once more: one process becomes the command, the other waits for it, says how it ended and is gone."""
    with connection.makefile() as lines:
        asked = json.loads(lines.readline())
    if (command := os.fork()) == 0:
        connection.close()
        become(asked)
        return
    _, status = os.waitpid(command, 0)
    connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def become(asked: dict[str, Any]) -> None:
    """What the command would be, had it been started: as it ends, so does this process."""
    files = [os.open(asked[name], os.O_WRONLY) for name in ("stdout", "stderr")]
    for number, file in enumerate([NOTHING, *files]):
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(asked["environment"])
    if asked["cwd"] is not None:
        os.chdir(asked["cwd"])
    signal.alarm(asked["timeout_seconds"])
    sys.argv[1:] = asked["arguments"]
    runpy.run_module("attune", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve(sys.argv[1])
