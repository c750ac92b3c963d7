"""What the Hub refuses or does not answer is told in our words: whose fault it is, and whether to try again."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SHA = "a" * 40
ANSWERS = {  # by the owner in the path, as huggingface.co answers
    "gated": (403, {"X-Error-Code": "GatedRepo"}),
    "nobody": (401, {"X-Error-Code": "RepoNotFound"}),
    "moved": (404, {"X-Error-Code": "RevisionNotFound"}),
    "busy": (429, {"Retry-After": "0"}),
    "denied": (403, {}),
    "proxy": (200, {"Content-Type": "text/html"}),
}
EXPECTED = {
    "gated": ("hub_access_denied", "user", False),
    "nobody": ("{}_not_found", "user", False),
    "moved": ("{}_not_found", "user", False),
    "busy": ("hub_busy", "capacity", True),
    "denied": ("hub_access_denied", "user", False),
    "proxy": ("hub_unreachable", "system", True),
    "offline": ("hub_unreachable", "system", True),
}
PROGRAM = f"""
import json, sys
from pathlib import Path
from alignment_core.datasets.hub import download_dataset
from alignment_core.errors import AlignmentError
from alignment_core.families.source import fetch_model
from alignment_core.rewards.source import fetch_folder
from alignment_core.spec import HubSource

def source(owner):
    return HubSource(repo_id=owner + "/x", revision="{SHA}")

DOWNLOADS = {{
    "model": lambda owner: fetch_model(source(owner)),
    "reward": lambda owner: fetch_folder("clip_score", source(owner)),
    "dataset": lambda owner: download_dataset(owner + "/x", "{SHA}", Path(sys.argv[1])),
}}
told = {{}}
for owner in sys.argv[2:]:
    for kind, download in DOWNLOADS.items():
        try:
            download(owner)
        except AlignmentError as error:
            told[f"{{owner}} {{kind}}"] = [error.code, error.category, error.retryable, f"{{error.message}} {{error.hint}}"]
print(json.dumps(told))
"""


class Hub(BaseHTTPRequestHandler):
    """The Hub's part of a conversation: a status and a header for each owner."""

    def _answer(self) -> None:
        owner = next(owner for owner in ANSWERS if f"/{owner}/" in self.path)
        status, headers = ANSWERS[owner]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "6")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"<html>")

    do_GET = do_HEAD = do_POST = _answer  # noqa: N815  (what http.server calls)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def told(endpoint: str, folder: Path, *owners: str, **environment: str) -> dict[str, list[object]]:
    """What each kind of download says of each owner's repository, from a process that has `endpoint` for the Hub."""
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "0", **environment}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), *owners],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow  # the Hub's client is patient with a server that is busy
def test_each_answer_of_the_hub_is_told_for_what_it_is(hub: str, tmp_path: Path) -> None:
    said = told(hub, tmp_path, *ANSWERS)
    for owner in ANSWERS:
        code, category, retryable = EXPECTED[owner]
        for kind in ("model", "reward", "dataset"):
            found = said[f"{owner} {kind}"]
            assert found[:3] == [code.format(kind), category, retryable], (owner, kind, found)
            assert f"{owner}/x@aaaaaaaaaaaa" in str(found[3])


@pytest.mark.parametrize(
    "environment",
    [pytest.param({}, id="no network", marks=pytest.mark.slow), pytest.param({"HF_HUB_OFFLINE": "1"}, id="told so")],
)
def test_a_machine_without_a_network_says_so_and_speaks_of_no_stack_trace(
    environment: dict[str, str], tmp_path: Path
) -> None:
    for found in told("http://127.0.0.1:9", tmp_path, "offline", **environment).values():
        assert tuple(found[:3]) == EXPECTED["offline"]
        assert "cannot be reached from the worker" in str(found[3])
        assert "HF_ENDPOINT" in str(found[3])
        assert "stack" not in str(found[3])
