"""The embedded broker is found, keeps its queue over a restart, and its socket path fits."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from attune import valkey
from tests.servers.process import folder


def serve(data_dir: Path) -> subprocess.Popen[bytes]:
    path = valkey.socket_path(data_dir)
    command = valkey.server_command(valkey.find_server(), data_dir, path)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    valkey.wait_for_server(path)
    return process


def ask(data_dir: Path, command: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.fspath(valkey.socket_path(data_dir)))
        connection.sendall(command + b"\r\n")
        return connection.recv(1000)


def test_what_is_queued_survives_a_kill() -> None:
    with folder("valkey") as data_dir:
        first = serve(data_dir)
        # with `everysec` a write may wait two seconds for the sync before it; WAITAOF is newer than Debian's Redis
        assert ask(data_dir, b"CONFIG SET appendfsync always") == b"+OK\r\n"
        assert ask(data_dir, b"RPUSH queue bell") == b":1\r\n"
        first.kill()
        first.wait()
        second = serve(data_dir)
        assert ask(data_dir, b"LRANGE queue 0 -1") == b"*1\r\n$4\r\nbell\r\n"
        second.kill()
        second.wait()


def test_only_its_owner_may_connect() -> None:
    with folder("valkey") as data_dir:
        process = serve(data_dir)
        assert valkey.socket_path(data_dir).stat().st_mode & 0o077 == 0
        process.kill()
        process.wait()


def test_a_long_data_folder_gets_a_short_private_socket(tmp_path: Path) -> None:
    data_dir = tmp_path / ("long" * 40)
    path = valkey.socket_path(data_dir)
    assert len(os.fsencode(path)) <= valkey.LONGEST_SOCKET_PATH
    assert path == valkey.socket_path(data_dir)
    assert path.parent.stat().st_mode & 0o077 == 0
    path.parent.rmdir()


def test_a_server_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "valkey-server"
    installed.write_text("#!/bin/sh\n")
    installed.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert valkey.find_server() == installed
