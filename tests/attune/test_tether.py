"""A tethered process ends with its parent, and keeps the pid and the exit code of what it becomes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from attune.tether import tethered
from tests.servers.process import wait_until


def test_it_becomes_the_command() -> None:
    process = subprocess.Popen(tethered(["sh", "-c", "echo $$; exit 7"]), stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate()
    assert int(output) == process.pid
    assert process.returncode == 7


def test_it_ends_with_its_parent() -> None:
    parent = f"""
import subprocess, sys
sys.path.insert(0, {str(Path.cwd())!r})
from attune.tether import tethered
process = subprocess.Popen(tethered(["sleep", "600"]), stdout=subprocess.DEVNULL)
print(process.pid, flush=True)
process.wait()
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    wait_until(lambda: child.name() == "sleep", "the exec")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the end of the child")


def test_a_parent_that_died_before_is_noticed() -> None:
    command = tethered(["sleep", "600"])
    command[command.index(str(os.getpid()))] = "1"  # not our parent
    assert subprocess.run(command, timeout=10).returncode == -signal.SIGTERM
