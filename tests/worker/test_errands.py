"""The process of an errand ends with whoever hears it, and nothing of the watch outlives it."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from worker.errands import watched
from worker.heartbeat import Heartbeat

TALKS_ON = "import time\nwhile True:\n    print('on', flush=True)\n    time.sleep(0.01)"
LISTENS_TO_NOBODY = "import time\nprint('on', flush=True)\ntime.sleep(60)"


@pytest.fixture
def heartbeat() -> Iterator[Heartbeat]:
    patience = {"lease_seconds": 60.0, "heartbeat_seconds": 20.0, "poll_seconds": 0.05}
    with Heartbeat(lambda: "go_on", lambda: "go_on", **patience, shutting_down=threading.Event()) as beating:
        yield beating


def started(program: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True)


def timers() -> list[threading.Timer]:
    every = (one for one in threading.enumerate() if isinstance(one, threading.Timer))
    return [one for one in every if one.function.__module__ == "worker.errands"]


@pytest.mark.parametrize("program", [TALKS_ON, LISTENS_TO_NOBODY])
def test_an_error_of_who_hears_it_ends_it_at_once(heartbeat: Heartbeat, program: str) -> None:
    process, begun = started(program), time.monotonic()
    assert process.stdout is not None
    with pytest.raises(json.JSONDecodeError), watched(process, heartbeat, 30.0):
        json.loads(process.stdout.readline())
    assert process.returncode == -9
    assert time.monotonic() - begun < 10
    wait_for_none_of_the_watch()


def test_time_ends_it_and_is_told(heartbeat: Heartbeat) -> None:
    process = started(LISTENS_TO_NOBODY)
    with watched(process, heartbeat, 0.2) as late:
        process.communicate()
    assert (process.returncode, late.is_set()) == (-9, True)
    wait_for_none_of_the_watch()


def test_one_that_ends_by_itself_is_left_alone(heartbeat: Heartbeat) -> None:
    process = started("print('done')")
    with watched(process, heartbeat, 30.0) as late:
        said, _ = process.communicate()
    assert (said, process.returncode, late.is_set()) == (b"done\n", 0, False)
    wait_for_none_of_the_watch()


def wait_for_none_of_the_watch() -> None:
    """A timer that was left would end, much later, what has the number of the process by then."""
    for one in timers():
        one.join(2)
    assert not timers()
