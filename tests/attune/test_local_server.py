"""`attune up` serves, stops cleanly on Ctrl-C, and leaves nothing behind when it is killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from attune.client import Client
from tests.servers.process import folder, free_port, wait_until


@dataclass
class Up:
    """A running `attune up`."""

    process: subprocess.Popen[bytes]
    data_dir: Path
    port: int
    output: Path

    def children(self) -> list[psutil.Process]:
        """Every process of this data folder; Valkey overwrites its environment with its title, which names the socket."""
        found = []
        for process in psutil.process_iter():
            try:
                is_ours = process.environ().get("ATTUNE_DATA_DIR") == str(self.data_dir)
                is_broker = any(f"{self.data_dir}/valkey.sock" in word for word in process.cmdline())
            except psutil.Error:
                continue  # it has ended, or is a zombie
            if is_ours or is_broker:
                found.append(process)
        return found


def start(data_dir: Path, port: int) -> Up:
    output = data_dir.parent / f"{data_dir.name}.out"
    arguments = ["up", "--data-dir", str(data_dir), "--port", str(port)]
    with output.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "attune", *arguments], stdout=file, stderr=file)
    return Up(process, data_dir, port, output)


@pytest.fixture
def up() -> Iterator[Up]:
    with folder("up") as parent:
        running = start(parent / "data", free_port())
        try:
            wait_until(
                lambda: "is up at" in running.output.read_text() or running.process.poll() is not None, "its start"
            )
            assert running.process.poll() is None, running.output.read_text()
            yield running
        finally:
            running.process.kill()
            running.process.wait()
            wait_until(lambda: not running.children(), "the end of every part")
            running.output.unlink()


def test_it_serves_and_ctrl_c_stops_every_part(up: Up) -> None:
    with Client(f"http://127.0.0.1:{up.port}") as client:
        assert client.is_ready()
    assert len(up.children()) == 4, "broker, API, and two workers"
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(timeout=40) == 0
    assert up.children() == []
    assert up.output.read_text().splitlines()[-1] == "stopped"


def test_a_second_ctrl_c_does_not_wait_and_leaves_nothing_behind(up: Up) -> None:
    for process in up.children():
        if "worker.app" in process.cmdline():
            process.suspend()  # it would end at once: nothing runs on it
    up.process.send_signal(signal.SIGINT)
    wait_until(lambda: "stopping" in up.output.read_text(), "its first answer")
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(timeout=20) == 0
    assert up.children() == []
    assert up.output.read_text().splitlines()[-1] == "stopped"


def test_it_stops_though_sigint_was_ignored_when_a_script_started_it() -> None:
    with folder("up") as parent:
        command = f"{sys.executable} -m attune up --data-dir {parent}/data --port {free_port()} & echo $!; wait $!"
        shell = subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert shell.stdout is not None
        pid = int(shell.stdout.readline())
        assert "is up at" in shell.stdout.readline()
        os.kill(pid, signal.SIGINT)
        assert shell.wait(timeout=40) == 0
        assert shell.stdout.read().splitlines()[-1] == "stopped"
        shell.stdout.close()


def test_a_second_server_on_the_same_folder_is_refused_and_the_first_lives_on(up: Up) -> None:
    second = start(up.data_dir, free_port())
    assert second.process.wait(timeout=20) == 1
    assert "another Attune server uses" in second.output.read_text()
    with Client(f"http://127.0.0.1:{up.port}") as client:
        assert client.is_ready()


def test_a_taken_port_is_named(up: Up) -> None:
    second = start(up.data_dir.parent / "other", up.port)
    assert second.process.wait(timeout=20) == 1
    assert f"127.0.0.1:{up.port}" in second.output.read_text()
    assert "attune up --port N" in second.output.read_text()
    assert not second.data_dir.exists(), "what was refused leaves no folder"


def test_nothing_is_left_when_it_is_killed(up: Up) -> None:
    os.kill(up.process.pid, signal.SIGKILL)
    wait_until(lambda: not up.children(), "the end of every part", 30)


def test_a_part_that_ends_ends_the_rest_and_is_named(up: Up) -> None:
    api = next(process for process in up.children() if "uvicorn" in process.cmdline())
    api.kill()
    assert up.process.wait(timeout=40) == 1
    assert "api ended" in up.output.read_text()
    assert up.children() == []
