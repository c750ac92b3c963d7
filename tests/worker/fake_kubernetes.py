"""A Kubernetes API server with Kubeflow Trainer and Kueue behind it, as far as the launcher uses them.

A real HTTP server that really runs a TrainJob's command, once a node. While `holds` is set Kueue admits nothing. What belongs
to a TrainJob is known by TRAINJOB in its environment.
"""

import json
import os
import re
import signal
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.worker.marked import kill_all_with, pids_with

PATH = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/attune/trainjobs"
TOKEN = "token of a test"


class FakeKubernetes:
    def __init__(self) -> None:
        self.holds = False
        self.train_jobs: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *arguments: Handler(self, *arguments))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        for name in list(self.train_jobs):
            self.delete(name)
        self._server.shutdown()
        self._server.server_close()

    def create(self, train_job: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = train_job["metadata"]["name"]
        if not re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name) or len(name) > 63:
            return 422, {"message": "metadata.name must match RFC 1035 DNS label format"}
        if train_job["spec"]["runtimeRef"]["name"] != "attune":
            return 403, {"message": "trainingruntimes.trainer.kubeflow.org not found"}
        with self._lock:
            if name in self.train_jobs:
                return 409, {"message": f"{name} already exists"}
            self.train_jobs[name] = train_job
            self._condition(name, "Suspended" if self.holds else "Created")
        if not self.holds:
            threading.Thread(target=self._run, args=(name,), daemon=True).start()
        return 201, train_job

    def suspend(self, name: str) -> None:
        """As Kueue does when a gang of more importance needs the place."""
        self._condition(name, "Suspended")
        self._end_pods(name)

    def lose(self, name: str) -> None:
        """As when somebody deletes it by force."""
        self.train_jobs.pop(name, None)
        kill_all_with("TRAINJOB", name)

    def delete(self, name: str) -> None:
        self._end_pods(name)
        self.train_jobs.pop(name, None)

    def _run(self, name: str) -> None:
        trainer = self.train_jobs[name]["spec"]["trainer"]
        pods = [self._pod(name, trainer, node) for node in range(trainer["numNodes"])]
        while any(pod.poll() is None for pod in pods) and not any(pod.returncode for pod in pods):
            time.sleep(0.02)
        if any(pod.returncode for pod in pods):
            self._end_pods(name)
        codes = [pod.wait() for pod in pods]
        self._condition(name, "Failed" if any(codes) else "Complete")

    def _pod(self, name: str, trainer: dict[str, Any], node: int) -> subprocess.Popen[bytes]:
        place = {
            "PET_NODE_RANK": str(node),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(20_000 + os.getpid() % 9_000),
        }
        return subprocess.Popen(trainer["command"], env={**os.environ, **place, "TRAINJOB": name})

    def _end_pods(self, name: str, grace_seconds: float = 1.0) -> None:
        for pid in pids_with("TRAINJOB", name):
            if b"worker.launchers.agent" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_seconds
        while pids_with("TRAINJOB", name) and time.monotonic() < deadline:
            time.sleep(0.02)
        kill_all_with("TRAINJOB", name)

    def _condition(self, name: str, kind: str) -> None:
        train_job = self.train_jobs.get(name)
        found = train_job.setdefault("status", {}).setdefault("conditions", []) if train_job else []
        if not any(one["type"] in ("Suspended", "Complete", "Failed") for one in found):
            found.append({"type": kind, "status": "True", "reason": kind, "message": kind})


class Handler(BaseHTTPRequestHandler):
    def __init__(self, cluster: FakeKubernetes, *arguments: Any) -> None:
        self.cluster = cluster
        super().__init__(*arguments)

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path == PATH:
            label, _, value = parse_qs(address.query)["labelSelector"][0].partition("=")
            found = [one for one in self.cluster.train_jobs.values() if one["metadata"]["labels"].get(label) == value]
            return self.answer(200, {"items": found})
        found = self.cluster.train_jobs.get(address.path.rpartition("/")[2])
        self.answer(200, found) if found else self.answer(404, {"message": "not found"})

    def do_POST(self) -> None:
        self.answer(*self.cluster.create(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

    def do_DELETE(self) -> None:
        name = urlsplit(self.path).path.rpartition("/")[2]
        status = 200 if name in self.cluster.train_jobs else 404
        self.cluster.delete(name)
        self.answer(status, {})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            status, body = 401, {"message": "Unauthorized"}
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Tests print what they need."""
