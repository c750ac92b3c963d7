"""What the faults are judged by, the relay that makes some of them, and one of them done to a real deployment."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fault.faults import FAULTS
from benchmarks.fault.page import table_of
from benchmarks.fault.relay import ERROR, TRUNCATED_BYTES, Relay
from benchmarks.fault.scene import recovery_seconds, stale_writes, steps_twice
from service.store.records.runs import EventRecord

ROOT = Path(__file__).parents[2]


def told(type: str, attempt: int = 1, **data: Any) -> EventRecord:
    return EventRecord(id="evt", job_id="job", seq=1, attempt=attempt, type=type, data=data, time=datetime.now(UTC))


def step(number: int, attempt: int = 1) -> EventRecord:
    return told("step_completed", attempt, step=number)


def test_recovery_is_the_longest_time_without_a_new_step() -> None:
    seen = [(step(1), 1.0), (step(2), 2.0), (step(3), 2.5), (step(2, 2), 10.0), (step(3, 2), 10.5), (step(4, 2), 11.0)]
    assert recovery_seconds(seen, 2.1) == 8.5, "from step 3 to step 4; what is done twice is no progress"
    assert recovery_seconds(seen, 11.5) is None


def test_a_job_without_a_step_to_do_has_recovered_with_what_comes_next() -> None:
    seen = [(step(1), 1.0), (told("phase_changed", 2, phase="evaluating"), 4.0), (told("evaluation_completed", 2), 6.0)]
    assert recovery_seconds(seen, 2.0) == 4.0


def test_what_an_old_attempt_says_after_a_new_one_is_counted() -> None:
    assert stale_writes((step(1), step(2, 2), step(3, 2))) == 0
    assert stale_writes((step(1), step(2, 2), step(2), step(3, 2))) == 1
    assert steps_twice((step(1), step(2), step(2, 2))) == 1


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that sends back what it is sent."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(ConnectionError):
                while chunk := connection.recv(65_536):
                    connection.sendall(chunk)

    threading.Thread(target=serve, daemon=True).start()
    yield "127.0.0.1", listener.getsockname()[1]
    listener.close()


def asked(relay: Relay, content: bytes) -> bytes:
    """What comes back until the other end closes, or as much as was sent."""
    found = b""
    with socket.create_connection(("127.0.0.1", relay.port), timeout=10) as connection:
        try:
            connection.sendall(content)
            while len(found) < len(content) and (chunk := connection.recv(65_536)):
                found += chunk
        except (ConnectionResetError, BrokenPipeError):
            pass
    return found


def test_a_relay_passes_cuts_and_breaks_what_goes_through_it(echo: tuple[str, int]) -> None:
    relay = Relay(echo)
    assert asked(relay, b"hello") == b"hello"
    relay.mode = "down"
    assert asked(relay, b"hello") == b""
    relay.mode = "errors"
    assert asked(relay, b"x" * len(ERROR)) == ERROR
    relay.mode = "truncate"
    assert asked(relay, b"short") == b"short"
    assert len(asked(relay, bytes(10 * TRUNCATED_BYTES))) <= TRUNCATED_BYTES
    relay.mode = "pass"
    assert asked(relay, b"again") == b"again"
    relay.close()


def test_a_silent_relay_holds_back_and_loses_nothing(echo: tuple[str, int]) -> None:
    relay = Relay(echo)
    relay.mode = "stall"
    threading.Timer(0.3, lambda: setattr(relay, "mode", "pass")).start()
    assert asked(relay, b"late") == b"late"
    relay.close()


def test_the_page_has_what_was_measured_of_every_fault() -> None:
    rows = json.loads((ROOT / "docs" / "reliability.json").read_text())["rows"]
    page = (ROOT / "docs" / "reliability.md").read_text()
    assert "\n".join(table_of(rows)) in page
    measured = {(row["fault"], row["parts"]) for row in rows}
    listed = {(fault.name, parts) for fault in FAULTS for parts in fault.parts}
    assert measured <= listed
    assert {name for name, _ in measured} == {name for name, _ in listed}
    assert not [row for row in rows if row.get("broken")]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_drained_worker_and_a_lost_broker_cost_a_job_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.faults", str(tmp_path / "faults"), "--parts", "embedded"]
    subprocess.run([*command, "--only", "drained", "broker killed"], check=True, capture_output=True)
    rows = json.loads((tmp_path / "faults.json").read_text())["rows"]
    assert [(row["attempts"], row["steps_twice"], row["overlap_seconds"]) for row in rows] == [(2, 0, 0.0), (1, 0, 0.0)]
    assert all(row["weights_equal"] and not row["lost"] and not row["stale_writes"] for row in rows)
