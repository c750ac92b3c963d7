"""Gangs as TrainJobs of Kubeflow Trainer (`trainer.kubeflow.org/v1alpha1`), admitted by Kueue where a queue is named.

Four calls of the Kubernetes API over HTTP, with the credentials of the pod: the official client is a hundred times as large,
and knows no TrainJob. Image, volumes and grace time are the TrainingRuntime's, which the operator applies
(docs/scale/kubernetes.yaml). Rank 0's events come over the shared folder, where the checkpoints have to go in any case: a
kubelet rotates a pod's log and deletes it with the pod.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import structlog

from alignment_core.errors import AlignmentError
from service.store.clock import host_seconds
from worker.launchers.cluster import LOST, Ended, State
from worker.launchers.contract import EXIT_LOST, Plan
from worker.launchers.folder import GangFolder

CALL_SECONDS = 30.0
GROUP = "trainer.kubeflow.org"
JOB, ATTEMPT, LEASE, QUEUE = "attune/job", "attune/attempt", "attune/lease", "kueue.x-k8s.io/queue-name"
CREDENTIALS = Path("/var/run/secrets/kubernetes.io/serviceaccount")

log = structlog.get_logger()


@dataclass(frozen=True)
class KubeflowEngine:
    """`gpu` is the resource that a process needs one of, such as `nvidia.com/gpu`; None for a CPU."""

    url: str
    namespace: str
    runtime: str
    queue: str | None = None
    gpu: str | None = "nvidia.com/gpu"
    most_on_a_node: int = 8
    poll_seconds: float = 5.0
    credentials: Path = CREDENTIALS
    python: tuple[str, ...] = ("python", "-P", "-m")

    def submit(self, plan: Plan, folder: GangFolder, num_nodes: int) -> None:
        try:
            with self._client() as client:
                answer = client.post(self._address, json=train_job(self, plan, folder.path, num_nodes))
        except (httpx.HTTPError, OSError) as error:
            message = f"the Kubernetes API does not answer: {type(error).__name__}"
            raise AlignmentError("launcher_refused", message, category="system", retryable=True) from error
        if answer.status_code != httpx.codes.CREATED:
            raise AlignmentError("launcher_refused", _said(answer), category="system", retryable=True)

    def state(self, job_id: str, attempt: int) -> State:
        answer = self._call("GET", f"/{name_of(job_id, attempt)}")
        if answer is None or answer.status_code not in (httpx.codes.OK, httpx.codes.NOT_FOUND):
            return "unknown"
        return LOST if answer.status_code == httpx.codes.NOT_FOUND else state_of(answer.json())

    def remove(self, job_id: str, attempt: int) -> None:
        # foreground: the TrainJob is there until its pods are gone
        self._call("DELETE", f"/{name_of(job_id, attempt)}", {"propagationPolicy": "Foreground"})

    def attempts(self, job_id: str) -> list[int]:
        answer = self._call("GET", "", {"labelSelector": f"{JOB}={job_id}"})
        if answer is None or answer.status_code != httpx.codes.OK:
            return []
        return [int(item["metadata"]["labels"][ATTEMPT]) for item in answer.json()["items"]]

    @property
    def _address(self) -> str:
        return f"{self.url}/apis/{GROUP}/v1alpha1/namespaces/{self.namespace}/trainjobs"

    def _call(self, method: str, path: str, query: dict[str, str] | None = None) -> httpx.Response | None:
        """None when it cannot be asked just now."""
        try:
            with self._client() as client:
                return client.request(method, f"{self._address}{path}", params=query)
        except (httpx.HTTPError, OSError) as error:
            log.warning("kubernetes_unreachable", error=type(error).__name__)
            return None

    @contextmanager
    def _client(self) -> Iterator[httpx.Client]:
        """The token is read anew: the kubelet replaces it every hour."""
        token, authority = self.credentials / "token", self.credentials / "ca.crt"
        with httpx.Client(
            headers={"Authorization": f"Bearer {token.read_text().strip()}"},
            verify=ssl.create_default_context(cafile=authority) if authority.exists() else True,
            timeout=CALL_SECONDS,
            trust_env=False,
        ) as client:
            yield client


def name_of(job_id: str, attempt: int) -> str:
    """A DNS label, as RFC 1035 has it."""
    return f"attune-{job_id.lower().replace('_', '-')}-{attempt}"


def train_job(engine: KubeflowEngine, plan: Plan, folder: Path, num_nodes: int) -> dict[str, Any]:
    on_a_node = plan.processes // num_nodes
    ends_at = datetime.fromtimestamp(datetime.now(UTC).timestamp() + plan.until - host_seconds(), UTC)
    labels = {JOB: plan.job_id, ATTEMPT: str(plan.attempt), **({QUEUE: engine.queue} if engine.queue else {})}
    trainer: dict[str, Any] = {
        "command": [*engine.python, "worker.launchers.agent", str(folder)],
        "numNodes": num_nodes,
        "numProcPerNode": on_a_node,
    }
    if engine.gpu is not None:
        trainer["resourcesPerNode"] = {"limits": {engine.gpu: on_a_node}}
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "TrainJob",
        "metadata": {
            "name": name_of(plan.job_id, plan.attempt),
            "labels": labels,
            "annotations": {LEASE: f"{ends_at:%Y-%m-%dT%H:%M:%SZ}"},
        },
        "spec": {
            "runtimeRef": {"apiGroup": GROUP, "kind": "TrainingRuntime", "name": engine.runtime},
            "trainer": trainer,
        },
    }


def state_of(train_job: dict[str, Any]) -> State:
    """What the conditions of a TrainJob mean; `Suspended` before Kueue admits it, and when Kueue takes it away again."""
    conditions = train_job.get("status", {}).get("conditions", [])
    true = {one["type"]: one.get("message") or one["type"] for one in conditions if one["status"] == "True"}
    if "Complete" in true:
        return Ended(0, true["Complete"])
    if "Failed" in true:
        return Ended(EXIT_LOST, true["Failed"])
    return "waiting" if "Suspended" in true or train_job["spec"].get("suspend") else "running"


def _said(answer: httpx.Response) -> str:
    try:
        message = answer.json()["message"]
    except (ValueError, KeyError, TypeError):
        message = answer.reason_phrase
    return f"Kubernetes answered {answer.status_code}: {message}"
