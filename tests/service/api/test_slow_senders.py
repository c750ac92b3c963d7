"""Senders that fall silent in the middle of a file: they are given up, what came of an upload in pieces stays, and memory is not theirs."""

import contextlib
import json
import socket
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from service.api.bodies import SLOWEST_BYTES
from service.api.upload_pieces import HELD_BYTES, PIECE_BYTES
from tests.service.api.conftest import NewApi
from tests.service.api.live import serving
from tests.service.api.pieces import BYTES, LONG, announce, content_of, finish, offset_of
from tests.service.api.world import Api

IDLE_SECONDS = 0.5


@pytest.fixture
def impatient(new_api: NewApi) -> Api:
    return new_api(upload_idle_seconds=IDLE_SECONDS)


@pytest.fixture
def address(impatient: Api) -> Iterator[str]:
    with serving(impatient.client.app) as found:  # pyright: ignore[reportArgumentType]
        yield found


def connect(address: str, head: str) -> socket.socket:
    """A connection that has asked, and has sent no body yet."""
    place = urlsplit(address)
    connection = socket.create_connection((place.hostname, place.port), timeout=30)
    verb, _, fields = head.partition("\r\n")
    connection.sendall(f"{verb} HTTP/1.1\r\nHost: {place.netloc}\r\n{fields}\r\n\r\n".encode())
    return connection


def begun(address: str, upload_id: str, announced: int) -> socket.socket:
    fields = f"Upload-Offset: 0\r\nContent-Type: {BYTES}\r\nContent-Length: {announced}"
    return connect(address, f"PATCH /v1/uploads/{upload_id}\r\n{fields}")


def answer_of(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Status and problem, read until the server closes the connection."""
    received = b""
    while chunk := connection.recv(65_536):
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def test_what_came_of_a_sender_who_falls_silent_stays_and_the_next_goes_on(impatient: Api, address: str) -> None:
    upload_id = announce(impatient, len(LONG))
    with begun(address, upload_id, len(LONG)) as connection:
        connection.sendall(LONG[:100_000])
        status, problem = answer_of(connection)
    assert (status, problem["code"]) == (408, "sender_stalled")
    assert "send it again" in problem["detail"]
    assert offset_of(impatient, upload_id) == 100_000
    assert list(impatient.parts.settings.data_dir.glob("uploads/*")) == []
    headers = {"Upload-Offset": "100000", "Content-Type": BYTES}
    rest = impatient.client.patch(f"/v1/uploads/{upload_id}", content=LONG[100_000:], headers=headers)
    assert rest.status_code == 204
    assert content_of(impatient, finish(impatient, upload_id).json()["id"]) == LONG


def test_who_sends_a_byte_now_and_then_is_given_up_too(impatient: Api, address: str) -> None:
    upload_id, sent = announce(impatient, 1000), 0
    with begun(address, upload_id, 1000) as connection, contextlib.suppress(OSError):
        connection.settimeout(0.05)
        while sent < 1000:
            with contextlib.suppress(TimeoutError):
                if connection.recv(65_536).startswith(b"HTTP/1.1 408"):
                    break
            connection.sendall(LONG[sent : sent + 1])
            sent += 1
    assert 0 < sent < 100
    assert 0 < offset_of(impatient, upload_id) <= sent


def test_who_is_slow_and_goes_on_is_waited_for(impatient: Api, address: str) -> None:
    upload_id, step = announce(impatient, 6 * SLOWEST_BYTES), SLOWEST_BYTES
    started = time.monotonic()
    with begun(address, upload_id, 6 * SLOWEST_BYTES) as connection:
        for start in range(0, 6 * step, step):
            time.sleep(IDLE_SECONDS / 3)
            connection.sendall(LONG[start : start + step])
        assert connection.recv(65_536).startswith(b"HTTP/1.1 204")
    assert time.monotonic() - started > 1.5 * IDLE_SECONDS
    assert offset_of(impatient, upload_id) == 6 * step


def test_a_form_whose_sender_falls_silent_leaves_nothing(impatient: Api, address: str) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.parquet"\r\n\r\nPAR1'
    form = "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 9999"
    with connect(address, f"POST /v1/datasets\r\n{form}") as connection:
        connection.sendall(body)
        status, problem = answer_of(connection)
    assert (status, problem["code"]) == (408, "sender_stalled")
    assert impatient.client.get("/v1/datasets").json()["data"] == []
    assert list(impatient.parts.settings.data_dir.glob("uploads/*")) == []


def test_many_who_are_silent_hold_little_memory(api: Api) -> None:
    num_senders, sent = 12, PIECE_BYTES - 500_000
    content = b"PAR1" + bytes(sent - 4)
    ids = [announce(api, PIECE_BYTES) for _ in range(num_senders)]
    folder = api.parts.settings.data_dir / "uploads"
    with serving(api.client.app) as address, contextlib.ExitStack() as open_ones:  # pyright: ignore[reportArgumentType]
        tracemalloc.start()
        try:
            for upload_id in ids:
                connection = open_ones.enter_context(begun(address, upload_id, PIECE_BYTES))
                connection.sendall(content)
            deadline = time.monotonic() + 30
            wanted = num_senders * (sent - 2 * HELD_BYTES)
            while sum(one.stat().st_size for one in folder.iterdir()) < wanted and time.monotonic() < deadline:
                time.sleep(0.02)
            assert sum(one.stat().st_size for one in folder.iterdir()) >= wanted
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert held < num_senders * 2 * HELD_BYTES < num_senders * sent / 10
