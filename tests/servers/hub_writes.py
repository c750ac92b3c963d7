"""A Hub that is written to: as much of its API as its client asks for a commit. Repositories, branches and large files are kept in memory."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGE = (".safetensors", ".png")
REPO = r"(?P<repo>[^/]+/[^/]+)"


@dataclass
class Hub:
    """What was pushed. `files` are by repository, branch and path; `commits` in their order."""

    token: str
    url: str = ""
    private: dict[str, bool] = field(default_factory=dict)
    files: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    large: dict[str, bytes] = field(default_factory=dict)  # by SHA-256
    uploads: list[str] = field(default_factory=list)
    is_down: bool = False


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        if self.hub.is_down:
            return self._answer(500, {"error": "down"})
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self._answer(401, {"error": "Invalid credentials"})
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        if found := re.fullmatch(rf"/api/models/{REPO}/branch/(?P<branch>[^/]+)", path):
            return self._branch(found["repo"], found["branch"])
        if found := re.fullmatch(rf"/api/models/{REPO}/preupload/(?P<branch>[^/]+)", path):
            return self._preupload(found["repo"], found["branch"], json.loads(body))
        if found := re.fullmatch(rf"/{REPO}\.git/info/lfs/objects/batch", path):
            return self._batch(json.loads(body))
        if found := re.fullmatch(rf"/api/models/{REPO}/commit/(?P<branch>[^/]+)", path):
            return self._commit(found["repo"], found["branch"], body)
        return self._answer(404, {"error": f"no POST {path}"})

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self._answer(401, {"error": "Invalid credentials"})
        if found := re.fullmatch(rf"/api/models/{REPO}(/revision/[^/]+)?", self.path.partition("?")[0]):
            return self._answer(200, {"id": found["repo"], "sha": self.hub.commits[-1], "siblings": []})
        return self._answer(404, {"error": f"no GET {self.path}"})

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub.large[oid] = content
        self.hub.uploads.append(oid)
        self._answer(200, {})

    def _create(self, asked: dict[str, Any]) -> None:
        repo = f"{asked['organization']}/{asked['name']}"
        address = f"{self.hub.url}/{repo}"
        if repo in self.hub.private:  # with the address, which the client reads there
            return self._answer(409, {"error": "You already created this model repo", "url": address})
        self.hub.private[repo] = asked.get("private", asked.get("visibility") == "private")
        self.hub.files[repo, "main"] = {}
        return self._answer(200, {"url": address})

    def _branch(self, repo: str, branch: str) -> None:
        if (repo, branch) in self.hub.files:
            return self._answer(409, {"error": "Reference already exists"})
        self.hub.files[repo, branch] = dict(self.hub.files[repo, "main"])
        return self._answer(201, {})

    def _preupload(self, repo: str, branch: str, asked: dict[str, Any]) -> None:
        there = self.hub.files[repo, branch]
        answer = []
        for file in asked["files"]:
            is_large = file["path"].endswith(LARGE)
            told = {"path": file["path"], "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False}
            if (content := there.get(file["path"])) is not None:
                blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
                told["oid"] = hashlib.sha256(content).hexdigest() if is_large else blob
            answer.append(told)
        self._answer(200, {"files": answer})

    def _batch(self, asked: dict[str, Any]) -> None:
        def told(one: dict[str, Any]) -> dict[str, Any]:
            upload = {"href": f"{self.hub.url}/large/{one['oid']}"}
            return one if one["oid"] in self.hub.large else {**one, "actions": {"upload": upload}}

        self._answer(200, {"transfer": "basic", "objects": [told(one) for one in asked["objects"]]})

    def _commit(self, repo: str, branch: str, body: bytes) -> None:
        for line in body.splitlines():
            said = json.loads(line)
            value = said["value"]
            if said["key"] == "file":
                self.hub.files[repo, branch][value["path"]] = base64.b64decode(value["content"])
            elif said["key"] == "lfsFile":
                self.hub.files[repo, branch][value["path"]] = self.hub.large[value["oid"]]
        commit = hashlib.sha1(body, usedforsecurity=False).hexdigest()
        self.hub.commits.append(commit)
        self._answer(200, {"success": True, "commitOid": commit, "commitUrl": f"{self.hub.url}/{repo}/commit/{commit}"})

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def writable_hub(token: str) -> Iterator[Hub]:
    hub = Hub(token)
    handler = type("Handler", (_Handler,), {"hub": hub, "protocol_version": "HTTP/1.1"})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield hub
        server.shutdown()
