"""A Hugging Face Hub of one model: what its client asks for to list a commit's files and to read a part of one."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c" * 40
REPO = "owner/tiny"


class _Handler(BaseHTTPRequestHandler):
    folder: Path
    asked: list[tuple[str, int]]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == f"/api/models/{REPO}/tree/{COMMIT}":
            files = sorted(path for path in self.folder.rglob("*") if path.is_file())
            self._answer(json.dumps([_entry(file, self.folder) for file in files]).encode(), "application/json")
        elif (
            path.startswith(start := f"/{REPO}/resolve/{COMMIT}/")
            and (self.folder / path.removeprefix(start)).is_file()
        ):
            self._answer((self.folder / path.removeprefix(start)).read_bytes(), "application/octet-stream")
        else:
            self.send_response(404)
            is_of_commit = path.startswith(f"/{REPO}/resolve/{COMMIT}/")
            self.send_header("X-Error-Code", "EntryNotFound" if is_of_commit else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, content: bytes, kind: str) -> None:
        total, part = len(content), content
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(found[1]), int(found[2] or total)
            part = content[start : end + 1]
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {found[1]}-{int(found[1]) + len(part) - 1}/{total}")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.asked.append((self.path, len(part)))
            self.wfile.write(part)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _entry(file: Path, folder: Path) -> dict[str, object]:
    name, content = file.relative_to(folder).as_posix(), file.read_bytes()
    return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha256(content).hexdigest()}


@contextmanager
def hub_of(folder: Path) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """The address of a Hub that has the folder as `owner/tiny`, and what was downloaded: paths, and how many bytes."""
    asked: list[tuple[str, int]] = []
    handler = type("Handler", (_Handler,), {"folder": folder, "asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
