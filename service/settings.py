"""Settings: every value the service and the worker read from the environment, as `ATTUNE_<NAME>`.

The defaults run everything embedded in one folder: SQLite, a Valkey server on a unix socket, a directory of objects.
Each address given here moves one part to its real server.
"""

import os
import tempfile
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from alignment_core.spec.places import UNPACKED_DISK_BYTES
from alignment_core.spec.trackers import TrackerName
from service.resource_classes import ResourceClass, parse_classes
from service.store.limits import Limits
from service.store.webhook_secrets import Sealer, key_in

Device = Literal["cpu", "cuda"]
SHORTEST_WEBHOOKS_KEY = 32  # characters
LONGEST_SOCKET_PATH = 100  # bytes; Linux allows 107 in sockaddr_un, macOS 103


class Settings(BaseSettings):
    """Where the parts are, and how patient they are. Unset values keep everything inside `data_dir`."""

    model_config = SettingsConfigDict(
        env_prefix="ATTUNE_",
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,  # a refused value must not take the secrets beside it into a log
    )

    # --- where things live ---
    data_dir: Path = Field(
        default=Path(".attune"), description="Folder of every embedded part; made absolute when read."
    )
    cache_dir: Path | None = Field(
        default=None,
        description="Latents, text embeddings, hashes of weights, downloaded datasets and prompt sets, kept between jobs; `cache` in data_dir.",
    )
    share_latents: bool | None = Field(
        default=None,
        description="Whether encoded images and prompts of uploaded datasets are kept in the object store too, for other workers "
        "and later jobs, until the dataset is deleted. Where the store is S3, when left out.",
    )
    shards_disk_bytes: int | None = Field(
        default=None,
        ge=64 * 2**20,
        description="How much of a run's encoded images and prompts may lie on the worker's disk where they are shared; the rest is "
        "read from the object store again. No limit when left out.",
    )
    encoded_days: float | None = Field(
        default=90.0,
        gt=0,
        description="How long encoded images and prompts stay in the object store after the last job that used them; then they are "
        "removed, and encoded again when they are wanted. None keeps them until the dataset is deleted.",
    )
    dataset_disk_bytes: int | None = Field(
        default=32 * 2**30,
        ge=64 * 2**20,
        description="The largest file of a dataset that a worker fetches whole. A larger one is read from the object store by ranges, of "
        "which so many bytes may lie on the worker's disk, for each job or check. None fetches every file whole.",
    )
    unpacked_disk_bytes: int | None = Field(
        default=UNPACKED_DISK_BYTES,
        ge=64 * 2**20,
        description="How much of the images that random crops or flips have copied out of parquet or Arrow files may lie on the worker's "
        "disk, for each job; those that were not read for longest go, and are read from the dataset again. None sets no limit.",
    )
    work_dir: Path | None = Field(default=None, description="One work folder a running job; `work` in data_dir.")
    catalog_path: Path | None = Field(
        default=None,
        description="JSON file of the models and rewards offered by name; without it the catalog is empty.",
    )
    allow_local_paths: bool = Field(
        default=False,
        description="Whether specs may name folders and files of the machine that trains. For single users.",
    )

    allow_hub_datasets: bool = Field(
        default=False,
        description="Whether specs may name datasets of the Hugging Face Hub, which workers then download.",
    )

    # --- database and queue ---
    database_url: str = Field(
        default="", description="SQLAlchemy URL; SQLite in data_dir when empty. PostgreSQL by psycopg."
    )
    broker_url: str | None = Field(
        default=None,
        description="Celery broker (`redis://...`); when unset, a Valkey server on a unix socket in data_dir.",
    )

    # --- objects ---
    object_store: Literal["directory", "s3"] = Field(default="directory", description="Where files are kept.")
    s3_endpoint_url: str | None = Field(
        default=None, description="Address of an S3-compatible server; Amazon's when unset."
    )
    s3_public_endpoint_url: str | None = Field(
        default=None, description="Address under which clients reach the S3 server, when it is not the service's own."
    )
    s3_bucket: str | None = Field(
        default=None, description="Bucket, which must exist. Needed by the object store `s3`."
    )
    s3_region: str = Field(default="us-east-1", description="Region that requests are signed for.")
    s3_access_key_id: str | None = Field(default=None, description="Access key; boto3's own search when unset.")
    s3_secret_access_key: SecretStr | None = Field(default=None, description="Secret of the access key.")
    s3_addressing_style: Literal["auto", "path", "virtual"] = Field(
        default="auto", description="Bucket in the path or in the host name; most self-hosted servers want `path`."
    )
    s3_checksums: Literal["when_required", "when_supported"] | None = Field(
        default=None,
        description="boto3's integrity checksums. `when_required` with a custom endpoint, since older servers store "
        "corrupt bytes under boto3's default; Amazon gets `when_supported`.",
    )
    transfer_part_bytes: int = Field(
        default=32 * 2**20, ge=5 * 2**20, description="Part size of multipart transfers (S3 refuses parts under 5 MiB)."
    )
    transfer_threads: int = Field(default=4, ge=1, le=64, description="Parts in flight in one transfer.")
    signed_url_seconds: int = Field(default=900, ge=1, le=604_800, description="How long a presigned download works.")

    # --- the API ---
    public_url: str | None = Field(
        default=None, description="Address clients see, when a proxy stands in front of the API."
    )
    api_keys_required: bool = Field(
        default=False,
        description="Refuse requests without a project's API key. Off, every request is the default project's.",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Names, separated by commas, by which a server without keys may be called, beside localhost, its addresses, "
        "its host's name and `ATTUNE_PUBLIC_URL`'s; `*` for any, where nobody's browser reaches it.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins, separated by commas, whose pages may call the API from a browser, such as "
        "`https://app.example.org`; none when empty.",
    )
    session_idle_seconds: float = Field(
        default=3600.0, gt=0, description="A browser's session that nobody has used for so long is over."
    )
    session_seconds: float = Field(default=43_200.0, gt=0, description="A browser's session is over after so long.")
    sign_ins_per_minute: int = Field(
        default=10,
        ge=1,
        description="Most tries to open a session from one address, and with one key, that a process of the API looks at in a minute.",
    )
    longest_link_seconds: int = Field(
        default=3600, ge=1, le=3600, description="The longest time for which a signed link may be made."
    )
    max_upload_bytes: int = Field(default=10 * 2**30, ge=1, description="Largest dataset that may be uploaded.")
    max_evaluation_images: int = Field(
        default=1_000_000, ge=1, description="Most images of an evaluation: contenders times prompts times seeds."
    )
    max_candidate_images: int = Field(
        default=20_000, ge=1, description="Most images of candidates: contenders times prompts times seeds."
    )
    playground: bool | None = Field(
        default=None,
        description="Whether `POST /v1/playground`, and the page of that name, draw at once, before all jobs; left out, where no keys are required.",
    )
    playground_seconds: float = Field(
        default=120.0, gt=0, le=3600, description="An attempt at what the playground draws fails after so many seconds."
    )
    max_list_limit: int = Field(default=100, ge=1, le=1000, description="Most rows one page of a list holds.")

    # --- what a project may take, unless the owner gives it limits of its own ---
    quota_jobs: int | None = Field(
        default=None, ge=0, description="Most jobs of a project that have not ended; no limit when left out."
    )
    quota_submits_per_hour: int | None = Field(
        default=None, ge=0, description="Most jobs that a project may submit in an hour; no limit when left out."
    )
    quota_gpu_hours_per_month: float | None = Field(
        default=None,
        ge=0,
        description="Hours of a project's training processes in a calendar month after which no job is taken; no limit when left out.",
    )
    quota_bytes: int | None = Field(
        default=None,
        ge=0,
        description="Most bytes of a project's data sets, checkpoints, exports and pictures; no limit when left out.",
    )

    # --- training ---
    trainer_command: str | None = Field(
        default=None,
        description="What starts a training process, in place of `python -m alignment_core`; `{processes}` in it is the job's "
        "`resources.processes`. Left out, jobs of several processes are started by torchrun.",
    )

    worker_devices: Annotated[tuple[Device, ...], NoDecode] = Field(
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

    # --- other people's tools ---
    trackers: Annotated[tuple[TrackerName, ...], NoDecode] = Field(
        default=(),
        description="Tools that hear of every job while it runs, `tensorboard`, `wandb` and `mlflow`, separated by commas. Workers need "
        "the extra of the same name; what lets them in are the variables of the tool's own client, of workers alone (docs/trackers.md).",
    )

    hub_namespaces: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Users and organizations of the Hugging Face Hub, separated by commas, whose repositories checkpoints may be pushed to; "
        "none when empty. The Hub is that of the workers' `HF_ENDPOINT`.",
    )
    hub_token: SecretStr | None = Field(
        default=None, description="Token that may write to these namespaces; workers need it, and nobody else."
    )
    max_push_seconds: float = Field(
        default=3600.0, gt=0, description="A push to the Hub that takes longer is given up; it is killed."
    )

    # --- remote rewards ---
    remote_reward_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Hosts, separated by commas, that the rewards of specs may be asked for over HTTPS; none when empty. "
        "They are trusted with images and prompts, and may have private addresses.",
    )
    remote_reward_secret: SecretStr | None = Field(
        default=None, description="Signs the requests to remote rewards; workers need it, and the reward servers."
    )

    # --- bounds of a project ---
    aliases_per_project: int = Field(default=200, ge=1, description="Most names that point at a project's checkpoints.")
    open_sweeps_per_project: int = Field(
        default=20, ge=1, description="Most sweeps of a project that have jobs to queue at the same time."
    )

    # --- webhooks ---
    webhooks_key: SecretStr | None = Field(
        default=None,
        description="Encrypts the secrets of webhooks in the database, for API and workers alike: text of 32 characters or more. Of several, "
        "separated by commas, the first encrypts and all decrypt. On SQLite a file in data_dir when left out; elsewhere there are no webhooks then.",
    )
    webhooks_allow_private: bool = Field(
        default=False,
        description="Let webhooks have private addresses of the workers' network, and there http as well as https.",
    )
    webhooks_per_project: int = Field(default=20, ge=1, description="Most webhooks of a project.")
    webhooks_timeout_seconds: float = Field(
        default=15.0, gt=0, le=60, description="How long a webhook has to answer, connecting included."
    )
    webhooks_poll_seconds: float = Field(
        default=1.0, gt=0, description="How often a worker looks for webhooks to send."
    )
    webhooks_disable_after_days: float = Field(
        default=5.0, gt=0, description="A webhook that has only failed for so long, ten times at least, is disabled."
    )
    webhooks_log_days: float = Field(
        default=30.0, gt=0, description="How long deliveries of webhooks are kept, sent or not."
    )

    # --- patience ---
    lease_seconds: float = Field(
        default=60.0, gt=0, description="A job whose worker is silent this long is given to another."
    )
    heartbeat_seconds: float = Field(default=15.0, gt=0, description="How often a worker renews its lease.")
    sweep_every_seconds: float = Field(
        default=15.0, gt=0, description="How often lost jobs and lost messages are looked for."
    )
    storage_patience_seconds: float = Field(
        default=300.0,
        ge=0,
        description="How long a job waits for an object store or a disk that is full, read-only or silent; then it is paused.",
    )
    max_attempts: int = Field(default=3, ge=1, description="A job fails after this many lost workers.")
    poll_seconds: float = Field(
        default=1.0, gt=0, description="How often a worker looks for a cancel or pause request."
    )
    cancel_grace_seconds: float = Field(
        default=30.0, ge=0, description="Time a training process has to save and leave before it is killed."
    )
    max_check_seconds: float = Field(
        default=3600.0, gt=0, description="A dataset whose check takes longer is refused; it is killed."
    )
    max_export_seconds: float = Field(
        default=3600.0, gt=0, description="An export of a checkpoint that takes longer is given up; it is killed."
    )
    max_checks_per_project: int = Field(
        default=3,
        ge=1,
        description="Datasets of one project that are checked at once; keep it under the checkers' `--concurrency`, so that "
        "no project can keep all of them busy.",
    )
    retention_every_seconds: float = Field(
        default=600.0, gt=0, description="How often workers let go what retention policies let go."
    )
    orphans_every_hours: float | None = Field(
        default=None,
        gt=0,
        description="How often workers remove objects that belong to nobody; never when left out, since every object is listed.",
    )
    orphan_grace_hours: float = Field(
        default=24.0, ge=1, description="How old an object must be to be taken for one that belongs to nobody."
    )
    audit_days: float = Field(
        default=365.0, gt=0, description="How long rows of the audit log are kept; workers' sweeps take out older ones."
    )
    upload_timeout_seconds: float = Field(
        default=86_400.0, gt=0, description="A dataset whose upload has not ended after this long is marked as failed."
    )
    unfinished_upload_hours: float = Field(
        default=24.0, gt=0, description="How long the pieces of an unfinished upload are kept after the last that came."
    )

    @field_validator("data_dir", "cache_dir", "work_dir", "catalog_path")
    @classmethod
    def _paths_do_not_depend_on_the_working_directory(cls, path: Path | None) -> Path | None:
        return path if path is None else path.expanduser().absolute()

    @field_validator("webhooks_key")
    @classmethod
    def _keys_are_long(cls, text: SecretStr | None) -> SecretStr | None:
        keys = [] if text is None else _listed(text)
        if any(len(key) < SHORTEST_WEBHOOKS_KEY for key in keys):
            raise ValueError(
                f"expected keys of {SHORTEST_WEBHOOKS_KEY} characters or more, such as `openssl rand -hex 32` prints"
            )
        return text if keys else None

    @field_validator("resource_classes")
    @classmethod
    def _classes_are_written_so(cls, classes: str) -> str:
        parse_classes(classes)
        return classes

    @field_validator("worker_devices", "trackers", "hub_namespaces", mode="before")
    @classmethod
    def _words_are_separated_by_commas(cls, devices: str | tuple[str, ...]) -> tuple[str, ...]:
        named = devices.split(",") if isinstance(devices, str) else devices
        return tuple(device.strip() for device in named if device.strip())

    @field_validator("remote_reward_hosts", mode="before")
    @classmethod
    def _hosts_are_separated_by_commas(cls, hosts: str | tuple[str, ...]) -> tuple[str, ...]:
        named = hosts.split(",") if isinstance(hosts, str) else hosts
        found = tuple(host.strip().lower() for host in named if host.strip())
        if bad := [host for host in found if any(letter in host for letter in "/*@[] ")]:
            raise ValueError(f"expected host names without scheme, path or wildcard, not {bad[0]!r}")
        return found

    @field_validator("allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _names_are_separated_by_commas(cls, names: str | tuple[str, ...]) -> tuple[str, ...]:
        named = names.split(",") if isinstance(names, str) else names
        return tuple(name.strip().lower() for name in named if name.strip())

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts_are_names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        if bad := [host for host in hosts if host != "*" and any(letter in host for letter in "/:*@ ")]:
            raise ValueError(f"expected host names without scheme, port, path or wildcard, not {bad[0]!r}")
        return hosts

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_whole(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            scheme, separator, rest = origin.partition("://")
            if not separator or scheme not in ("http", "https") or not rest or any(letter in rest for letter in "/*@ "):
                raise ValueError(f"expected origins such as https://app.example.org, not {origin!r}")
        return origins

    @field_validator("database_url")
    @classmethod
    def _postgresql_goes_through_psycopg(cls, url: str) -> str:
        scheme, separator, rest = url.partition("://")
        return f"postgresql+psycopg://{rest}" if separator and scheme in ("postgres", "postgresql") else url

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.object_store == "s3" and not self.s3_bucket:
            raise ValueError("ATTUNE_S3_BUCKET is needed when ATTUNE_OBJECT_STORE is s3")
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError(
                f"ATTUNE_HEARTBEAT_SECONDS ({self.heartbeat_seconds:g}) must be at most half of "
                f"ATTUNE_LEASE_SECONDS ({self.lease_seconds:g}), or one late heartbeat loses a healthy job"
            )
        return self

    @property
    def classes(self) -> tuple[ResourceClass, ...]:
        return parse_classes(self.resource_classes)

    @property
    def limits(self) -> Limits:
        return Limits(
            jobs=self.quota_jobs,
            submits=self.quota_submits_per_hour,
            gpu_hours=self.quota_gpu_hours_per_month,
            bytes=self.quota_bytes,
        )

    @property
    def webhooks_sealer(self) -> Sealer | None:
        """What seals and opens the secrets of webhooks; None where API and workers have no key in common."""
        if self.webhooks_key is not None:
            return Sealer(_listed(self.webhooks_key))
        if self.resolved_database_url.startswith("sqlite"):  # one host, one folder
            return Sealer((key_in(self.data_dir / "webhooks.key"),))
        return None

    @property
    def session_idle(self) -> timedelta:
        return timedelta(seconds=self.session_idle_seconds)

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir / 'attune.sqlite3'}"

    @property
    def objects_dir(self) -> Path:
        return self.data_dir / "objects"

    @property
    def resolved_cache_dir(self) -> Path:
        return self.cache_dir or self.data_dir / "cache"

    @property
    def shares_latents(self) -> bool:
        return self.object_store == "s3" if self.share_latents is None else self.share_latents

    @property
    def resolved_work_dir(self) -> Path:
        return self.work_dir or self.data_dir / "work"

    @property
    def broker_socket(self) -> Path:
        """Unix socket of the embedded broker; a folder of the user's in the temporary one when data_dir's path is too long."""
        socket = self.data_dir / "valkey.sock"
        if len(os.fsencode(socket)) <= LONGEST_SOCKET_PATH:
            return socket
        digest = sha256(os.fsencode(self.data_dir)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"attune-{os.getuid()}-{digest}" / "valkey.sock"

    @property
    def resolved_broker_url(self) -> str:
        return self.broker_url or f"redis+socket://{self.broker_socket}?virtual_host=0"

    @property
    def resolved_s3_checksums(self) -> Literal["when_required", "when_supported"]:
        return self.s3_checksums or ("when_required" if self.s3_endpoint_url else "when_supported")


def _listed(text: SecretStr) -> tuple[str, ...]:
    return tuple(one.strip() for one in text.get_secret_value().split(",") if one.strip())
