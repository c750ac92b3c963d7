"""A small HTTP server that breaks connections off, to see whether a client gets over it."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NUM_EVENTS = 6
LINE_ENDS_OF_PROSE = "a\u2028b\u2029c\u0085d"  # of no meaning in a stream of events
JOB: dict[str, Any] = {
    "id": "job_01kaf0h2v7x3m5q8r1s4t6w9yz",
    "name": None,
    "metadata": {},
    "status": "running",
    "is_terminal": False,
    "phase": "training",
    "attempt": 1,
    "progress": {"step": 120, "total": 400, "percent": 30.0, "eta_seconds": 56.0},
    "error": None,
    "spec": {},
    "latest_checkpoint_id": None,
    "created_at": "2026-11-20T09:15:00Z",
    "queued_at": None,
    "updated_at": "2026-11-20T09:15:31Z",
    "started_at": None,
    "finished_at": None,
}


class RudeServer(ThreadingHTTPServer):
    """Sends files in pieces, one a connection (the sizes in `pieces`, then 300,000 bytes), and two events a stream."""

    daemon_threads = True
    content = CONTENT
    honours_ranges = True
    paths: tuple[str, ...] = ("pytorch_lora_weights.safetensors", "training_state/state.json")

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pieces: list[int] = []
        self.statuses: list[int] = []  # of the next answers
        self.requests: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: RudeServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        if self.server.statuses:
            self._json(self.server.statuses.pop(0), {"code": "rude", "detail": "not now"})
        elif self.path.endswith("/events"):
            self._stream()
        elif self.path.endswith("/files"):
            size = len(CONTENT)
            files = [{"path": path, "size_bytes": size, "sha256": SHA256} for path in self.server.paths]
            self._json(200, {"data": files})
        elif "/files/" in self.path:
            self._piece()
        elif self.path.startswith("/v1/jobs?"):
            self._json(200, {"data": [JOB], "has_more": False, "last_id": JOB["id"]})
        elif self.path == "/v1/jobs/job_html?wait=0":
            self._head(200, {"Content-Type": "text/html", "Content-Length": "6"})
            self.wfile.write(b"<html>")
        else:
            problem = {"title": "Not Found", "code": "job_not_found", "detail": "there is no job", "status": 404}
            self._json(404, {**problem, "errors": [{"pointer": "/id", "message": "unknown"}]})

    def _stream(self) -> None:
        """Two events after `Last-Event-ID`, then the connection ends; `done` after the last."""
        self._head(200, {"Content-Type": "text/event-stream"})
        first = int(self.headers.get("Last-Event-ID", "evt_0").removeprefix("evt_")) + 1
        for number in range(first, min(first + 2, NUM_EVENTS + 1)):
            data = {"id": f"evt_{number}", "sequence": number, "attempt": 1, "type": "run_stopped"}
            data["data"] = {"type": "run_stopped", "step": number, "note": LINE_ENDS_OF_PROSE}
            text = json.dumps(data, ensure_ascii=False)
            self.wfile.write(b": heartbeat\n\n")
            self.wfile.write(f"id: evt_{number}\nevent: run_stopped\ndata: {text}\n\n".encode())
        if first + 2 > NUM_EVENTS:
            self.wfile.write(b"event: done\ndata: {}\n\n")
        else:
            self.wfile.write(b"id: evt_99\ndata: half an ev")

    def _piece(self) -> None:
        """A promise of the rest of the file, and a piece of it."""
        content = self.server.content
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.server.honours_ranges else 0
        status = 206 if start else 200
        self._head(status, {"Content-Length": str(len(content) - start)})
        size_bytes = self.server.pieces.pop(0) if self.server.pieces else 300_000
        self.wfile.write(content[start : start + size_bytes])

    def _json(self, status: int, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self._head(status, {"Content-Type": "application/json", "Content-Length": str(len(text))})
        self.wfile.write(text)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test looks at `requests`."""


@contextmanager
def rude_server() -> Iterator[RudeServer]:
    with RudeServer() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
