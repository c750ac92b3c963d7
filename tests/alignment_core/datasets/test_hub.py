"""A dataset of the Hub, from a server that speaks as the Hub does: its data files at a commit, and nothing else."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from alignment_core.datasets.detect import open_preferences
from tests.alignment_core.datasets.test_forms import PAIRS, csv_folder, pairs_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROGRAM = """
import sys
from pathlib import Path
from alignment_core.datasets.hub import download_dataset
from alignment_core.errors import DataError
try:
    print(download_dataset("owner/pairs", sys.argv[1], Path(sys.argv[2])))
except DataError as error:
    print(error.code, error.retryable)
"""


@dataclass
class Hub:
    """A repository of the files of a folder, at one commit."""

    folder: Path
    url: str = ""
    asked: list[str] = field(default_factory=list)
    breaks_off: bool = False

    def files(self) -> dict[str, bytes]:
        return {
            file.relative_to(self.folder).as_posix(): file.read_bytes()
            for file in sorted(self.folder.rglob("*"))
            if file.is_file()
        }

    def answer(self, path: str) -> tuple[int, bytes]:
        path = path.partition("?")[0]
        self.asked.append(path)
        files = self.files()
        if COMMIT not in path:
            return 404, b"{}"
        if path.startswith("/api/datasets/owner/pairs/tree/"):
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            return 200, json.dumps(entries).encode()
        if path.startswith("/api/datasets/owner/pairs/revision/"):
            siblings = [{"rfilename": name} for name in files]
            return 200, json.dumps({"id": "owner/pairs", "sha": COMMIT, "siblings": siblings}).encode()
        name = path.removeprefix(f"/datasets/owner/pairs/resolve/{COMMIT}/")
        if self.breaks_off and name.endswith("3-w.png"):
            return 400, b""  # the client does not try again
        return (200, files[name]) if name in files else (404, b"")


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = hub.answer(self.path)
            self.send_response(status)
            if status == 404:
                self.send_header("X-Error-Code", "RevisionNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("Content-Type", "application/json" if self.path.startswith("/api") else "image/png")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = csv_folder(tmp_path / "repository")
    (folder / "pairs.py").write_text("raise SystemExit('a loading script was run')")
    (folder / "model.pkl").write_bytes(b"pickle")
    running = Hub(folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(running)) as server:
        running.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield running
        server.shutdown()


def download(url: str, cache: Path, commit: str = COMMIT, offline: str = "0") -> str:
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(cache / "hf"), "HF_HUB_OFFLINE": offline}
    command = [sys.executable, "-c", PROGRAM, commit, str(cache)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_data_files_of_a_commit_are_downloaded_once_and_no_code(hub: Hub, tmp_path: Path) -> None:
    folder = Path(download(hub.url, tmp_path / "cache"))
    assert pairs_of(folder) == PAIRS
    assert open_preferences(folder).format == "csv"
    assert not [*folder.rglob("*.py"), *folder.rglob("*.pkl")]
    assert not [file for file in folder.rglob("*") if file.is_symlink()]
    hub.asked.clear()
    assert Path(download(hub.url, tmp_path / "cache")) == folder
    assert hub.asked == []


def test_half_a_download_is_not_taken_for_the_dataset(hub: Hub, tmp_path: Path) -> None:
    hub.breaks_off = True
    assert download(hub.url, tmp_path / "cache") == "hub_unreachable True"
    assert download(hub.url, tmp_path / "cache", offline="1") == "hub_unreachable True"
    hub.breaks_off = False
    assert pairs_of(Path(download(hub.url, tmp_path / "cache"))) == PAIRS


def test_a_commit_that_is_not_there_is_the_users_mistake(hub: Hub, tmp_path: Path) -> None:
    assert download(hub.url, tmp_path / "cache", "f" * 40) == "dataset_not_found False"
