"""Client: the HTTP API as methods. Synchronous, one connection pool, safe to share between threads.

with Client("http://127.0.0.1:8000") as client:
    dataset = client.wait_for_dataset(client.upload_dataset(Path("pairs.parquet")).id)
    job = client.create_job(spec)
    for event in client.events(job.id): ...
    client.download_checkpoint(client.result_checkpoint(job.id), Path("aligned"))

What a method does, its function says in `attune/operations/`, a file each kind of thing.
"""

import os
from typing import Self

import httpx

from attune.admin import Admin
from attune.candidates import Candidates
from attune.connection import Connection, checked_url
from attune.evaluations import Evaluations
from attune.labelings import Labelings
from attune.operations import aliases as on_aliases
from attune.operations import catalog as on_catalog
from attune.operations import checkpoints as on_checkpoints
from attune.operations import datasets as on_datasets
from attune.operations import exports as on_exports
from attune.operations import forks as on_forks
from attune.operations import jobs as on_jobs
from attune.operations import prompts as on_prompts
from attune.operations import pushes as on_pushes
from attune.operations import runs as on_runs
from attune.operations import sweeps as on_sweeps
from attune.operations import uploads as on_uploads
from attune.operations import weights as on_weights
from attune.resources.access import SignedLink
from attune.retention import Retention
from attune.webhooks import Webhooks

DEFAULT_URL = "http://127.0.0.1:8000"


class Client:
    """A connection to an Attune server. Every method raises `AttuneError` when the server says no or does not answer."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_seconds: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`base_url` and `api_key` come from `ATTUNE_URL` and `ATTUNE_API_KEY` when left out.

        `ValueError` for an address that is none.
        """
        key = api_key or os.environ.get("ATTUNE_API_KEY")
        self.base_url = checked_url(base_url or os.environ.get("ATTUNE_URL") or DEFAULT_URL)
        self.connection = Connection(self.base_url, key, timeout_seconds, transport)
        self.admin = Admin(self.connection)
        self.retention = Retention(self.connection)
        self.evaluations = Evaluations(self.connection)
        self.candidates = Candidates(self.connection)
        self.labelings = Labelings(self.connection)
        self.webhooks = Webhooks(self.connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.connection.close()

    upload_dataset = on_datasets.upload_dataset
    datasets = on_datasets.datasets
    get_dataset = on_datasets.get_dataset
    dataset_report = on_datasets.dataset_report
    dataset_pairs = on_datasets.dataset_pairs
    pair_thumbnail = on_datasets.pair_thumbnail
    wait_for_dataset = on_datasets.wait_for_dataset
    delete_dataset = on_datasets.delete_dataset

    unfinished_uploads = on_uploads.unfinished_uploads
    get_upload = on_uploads.get_upload
    delete_upload = on_uploads.delete_upload

    upload_prompts = on_prompts.upload_prompts
    prompt_sets = on_prompts.prompt_sets
    get_prompt_set = on_prompts.get_prompt_set
    prompts = on_prompts.prompts
    download_prompts = on_prompts.download_prompts
    delete_prompts = on_prompts.delete_prompts

    promote = on_aliases.promote
    aliases = on_aliases.aliases
    get_alias = on_aliases.get_alias
    promotions = on_aliases.promotions
    get_promotion = on_aliases.get_promotion
    delete_alias = on_aliases.delete_alias

    upload_weights = on_weights.upload_weights
    weights = on_weights.weights
    get_weights = on_weights.get_weights
    wait_for_weights = on_weights.wait_for_weights
    delete_weights = on_weights.delete_weights

    create_job = on_jobs.create_job
    validate = on_jobs.validate
    get_job = on_jobs.get_job
    wait_for_job = on_jobs.wait_for_job
    jobs = on_jobs.jobs
    cancel = on_jobs.cancel
    pause = on_jobs.pause
    ask = on_jobs.ask
    actions = on_jobs.actions
    resume = on_jobs.resume
    delete_job = on_jobs.delete_job

    fork_resume = on_forks.fork_resume
    fork_warm_start = on_forks.fork_warm_start
    ancestry = on_forks.ancestry

    create_sweep = on_sweeps.create_sweep
    get_sweep = on_sweeps.get_sweep
    sweeps = on_sweeps.sweeps
    cancel_sweep = on_sweeps.cancel_sweep
    delete_sweep = on_sweeps.delete_sweep

    events = on_runs.events
    past_events = on_runs.past_events
    metrics = on_runs.metrics
    report = on_runs.report
    manifest = on_runs.manifest
    download_report_page = on_runs.download_report_page
    download_tensorboard = on_runs.download_tensorboard
    logs = on_runs.logs
    samples = on_runs.samples
    newest_samples = on_runs.newest_samples
    download_sample = on_runs.download_sample
    delete_sample = on_runs.delete_sample
    delete_report = on_runs.delete_report

    checkpoints = on_checkpoints.checkpoints
    get_checkpoint = on_checkpoints.get_checkpoint
    newest_checkpoints = on_checkpoints.newest_checkpoints
    result_checkpoint = on_checkpoints.result_checkpoint
    checkpoint_files = on_checkpoints.checkpoint_files
    download_checkpoint = on_checkpoints.download_checkpoint
    download_weights = on_checkpoints.download_weights
    has_weights = on_checkpoints.has_weights
    delete_checkpoint = on_checkpoints.delete_checkpoint

    export_checkpoint = on_exports.export_checkpoint
    exports = on_exports.exports
    wait_for_export = on_exports.wait_for_export
    download_export = on_exports.download_export
    delete_export = on_exports.delete_export

    push_checkpoint = on_pushes.push_checkpoint
    wait_for_push = on_pushes.wait_for_push
    pushes = on_pushes.pushes
    delete_push = on_pushes.delete_push

    models = on_catalog.models
    methods = on_catalog.methods
    rewards = on_catalog.rewards

    def sign_link(self, path: str, *, expires_in_seconds: int = 300) -> SignedLink:
        """An address that opens one file or stream of the API without a key, for whoever has it, for so long."""
        body = {"path": path, "expires_in": expires_in_seconds}
        link = SignedLink.model_validate(self.connection.request("POST", "/v1/links", json=body))
        here = self.base_url.rstrip("/") if link.url.startswith("/") else ""
        return link.model_copy(update={"url": here + link.url})

    def is_ready(self) -> bool:
        """Whether the server and the parts it leans on answer."""
        return self.connection.answers("/readyz")
