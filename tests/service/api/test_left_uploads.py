"""Who sends a file and leaves: that is no error of the server's, and no row of the audit log for each piece."""

import json
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.service.api.live import serving
from tests.service.api.pieces import announce, break_off, finish, send_all
from tests.service.api.test_audit import entries
from tests.service.api.world import PARQUET, Api


def until_logged(capfd: pytest.CaptureFixture[str], method: str) -> list[dict[str, Any]]:
    """What the server logged until the request of this method was over."""
    logged: list[dict[str, Any]] = []
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        logged += [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
        if any((one["event"], one.get("method")) == ("request", method) for one in logged):
            return logged
        time.sleep(0.02)
    raise AssertionError("the request did not end")


def assert_left(logged: list[dict[str, Any]], method: str) -> None:
    assert [one["level"] for one in logged if one["level"] not in ("info", "debug")] == []
    assert [one["status"] for one in logged if one["event"] == "request" and one["method"] == method] == [499]


def test_who_leaves_in_the_middle_of_a_piece_is_no_error(any_api: Api, capfd: pytest.CaptureFixture[str]):
    upload_id = announce(any_api, len(PARQUET))
    with serving(any_api.client.app) as address:  # pyright: ignore[reportArgumentType]
        break_off(address, upload_id, 0, PARQUET[:100], len(PARQUET))
        assert_left(until_logged(capfd, "PATCH"), "PATCH")
    assert [one["action"] for one in entries(any_api)] == ["POST /v1/uploads"]


def test_who_leaves_in_the_middle_of_a_form_is_no_error(any_api: Api, capfd: pytest.CaptureFixture[str]):
    head = (
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 9999\r\n\r\n--b\r\n"
        'Content-Disposition: form-data; name="file"; filename="a.parquet"\r\n\r\nPAR1'
    )
    with serving(any_api.client.app) as address:  # pyright: ignore[reportArgumentType]
        place = urlsplit(address)
        with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
            connection.sendall(f"POST /v1/datasets HTTP/1.1\r\nHost: {place.netloc}\r\n{head}".encode())
        assert_left(until_logged(capfd, "POST"), "POST")
    assert entries(any_api) == []
    assert list(any_api.parts.settings.data_dir.glob("uploads/*")) == []


def test_the_audit_log_has_the_beginning_and_the_end_of_an_upload_and_no_piece(any_api: Api):
    kept, discarded = announce(any_api, len(PARQUET)), announce(any_api, 8)
    send_all(any_api, kept, PARQUET, piece=200)
    made = finish(any_api, kept).json()
    assert any_api.client.delete(f"/v1/uploads/{discarded}").status_code == 200
    assert [(one["action"], one["object_ids"]) for one in entries(any_api)] == [
        ("DELETE /v1/uploads/{upload_id}", [discarded]),
        ("POST /v1/uploads/{upload_id}/finish", [kept, made["id"]]),
        ("POST /v1/uploads", [discarded]),
        ("POST /v1/uploads", [kept]),
    ]
