"""Which launcher the settings name."""

import os
import shlex
from pathlib import Path
from typing import assert_never

from service.settings import Settings
from worker.launchers.cluster import ClusterLauncher
from worker.launchers.contract import Launcher
from worker.launchers.kubeflow import CREDENTIALS, KubeflowEngine
from worker.launchers.local import LocalLauncher
from worker.launchers.slurm import SlurmEngine
from worker.warm import WarmTrainer


def launcher_of(settings: Settings, warm: WarmTrainer | None) -> Launcher:
    match settings.launcher:
        case "local":
            return LocalLauncher(warm)
        case "slurm":
            options = tuple(shlex.split(settings.slurm_options))
            return ClusterLauncher(SlurmEngine(options, settings.processes_per_node))
        case "kubeflow":
            return ClusterLauncher(_kubeflow(settings, CREDENTIALS))
        case _:
            assert_never(settings.launcher)


def _kubeflow(settings: Settings, credentials: Path) -> KubeflowEngine:
    """The API server and the namespace are those of the pod that this worker runs in."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    return KubeflowEngine(
        url=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace=(credentials / "namespace").read_text().strip(),
        runtime=settings.kubernetes_runtime,
        queue=settings.kubernetes_queue,
        gpu=settings.kubernetes_gpu or None,
        most_on_a_node=settings.processes_per_node,
        credentials=credentials,
    )
