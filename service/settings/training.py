"""What starts trainings, where, and who watches them."""

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from service.resource_classes import ResourceClass, parse_classes
from service.settings.base import Group
from service.settings.lists import Words

Device = Literal["cpu", "cuda"]


class Training(Group):
    """What starts trainings, where, and who watches them."""

    trainer_command: str | None = Field(
        default=None,
        description="What starts a training process, in place of `python -m alignment_core`; `{processes}` in it is the job's "
        "`resources.processes`. Left out, jobs of several processes are started by torchrun.",
    )
    worker_devices: Annotated[tuple[Device, ...], NoDecode, Words] = Field(
        default=(),
        description="Devices that the workers have, `cpu` and `cuda`, separated by commas: a job that asks for another is "
        "refused instead of queued. Not looked at when empty. `attune up` sets it.",
    )
    worker_processes: int | None = Field(
        default=None,
        ge=1,
        description="Most processes that a worker can train one job in, as many as its host has GPUs: a job whose "
        "`resources.processes` are more is refused instead of queued. Not looked at when left out.",
    )
    worker_metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65_535,
        description="Port on which a worker answers `/metrics` for Prometheus, one for each worker of a host; none when left out.",
    )
    worker_metrics_host: str = Field(default="127.0.0.1", description="Address that this port listens on.")
    warm_trainer: bool = Field(
        default=True,
        description="Whether a worker of this host keeps a training process waiting that has imported everything, half a GiB of it: the "
        "next job of one process starts seconds sooner. Not with a command of your own.",
    )
    warm_trainer_free_bytes: int = Field(
        default=8 * 2**30,
        ge=0,
        description="Memory of the host that has to be free beside the waiting process; it is ended where less is.",
    )
    resource_classes: str = Field(
        default="",
        description="Classes of jobs by their processes and the memory of the cards that they need, each with the most of it, such as "
        "`small:1,large:8` or `small:1@24GiB,big:1@80GiB,large:8@80GiB`; a job is of the first that has room for it, and a class has the "
        "queue `celery.NAME`. A job that is in none is refused. Without classes all jobs are in the queue `celery`.",
    )
    launcher: Literal["local", "slurm", "kubeflow"] = Field(
        default="local",
        description="What starts a job's processes: torchrun on the worker's host, or Slurm or Kubeflow Trainer on others, which "
        "share `ATTUNE_WORK_DIR` and `ATTUNE_CACHE_DIR` with the worker (docs/scale.md).",
    )
    processes_per_node: int = Field(
        default=8,
        ge=1,
        description="Most processes on one node of a cluster: its GPUs. More are spread evenly over the fewest nodes.",
    )
    slurm_options: str = Field(
        default="--gpus-per-node={processes}",
        description="The site's options of sbatch, such as a partition and an account; `{processes}` is those of a node.",
    )
    kubernetes_runtime: str = Field(default="attune", description="TrainingRuntime in the worker's own namespace.")
    kubernetes_queue: str | None = Field(
        default=None, description="Kueue's LocalQueue for the TrainJobs; without it Kueue is not asked."
    )
    kubernetes_gpu: str = Field(
        default="nvidia.com/gpu", description="Resource that a process needs one of; empty for CPUs."
    )
    traces: bool = Field(
        default=False,
        description="Whether API and workers send OpenTelemetry traces, from the request to the steps of its job, over OTLP/HTTP: where to "
        "and how many is for the standard `OTEL_` variables. Needs the extra `tracing` (docs/operations.md).",
    )

    @field_validator("resource_classes")
    @classmethod
    def _classes_are_written_so(cls, classes: str) -> str:
        parse_classes(classes)
        return classes

    @property
    def classes(self) -> tuple[ResourceClass, ...]:
        return parse_classes(self.resource_classes)
