"""A real worker's jobs in a process that waited for one, and in two processes: rows, checkpoints, and a rank that is killed."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from alignment_core.events import CheckpointSaved, RunFailed, RunStarted
from tests.alignment_core.families.tiny_models import TINY
from tests.alignment_core.tiny import save_pairs
from tests.e2e.conftest import Deployment, embedded
from tests.e2e.test_job import LORA, until
from tests.servers.process import wait_until

STEPS, EVERY = 40, 4


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """One whose worker keeps a process waiting, with a tiny model in its catalog."""
    catalog, model = tmp_path / "catalog.json", TINY["sd"](tmp_path / "tiny")
    entry = {"type": "local", "path": str(model), "family": "sd", "resolution": 16, "description": "tiny"}
    catalog.write_text(json.dumps({"models": {"tiny": entry}}))
    with embedded() as settings:
        # a third of the lease is what a job waits for imports that have begun
        added = {
            "CATALOG_PATH": str(catalog),
            "WARM_TRAINER": "true",
            "WARM_TRAINER_FREE_BYTES": "0",
            "LEASE_SECONDS": "60",
        }
        deployed = Deployment(tmp_path, {**settings, **added})
        try:
            deployed.start_api()
            yield deployed
        finally:
            deployed.stop()


def spec_of(dataset_id: str, processes: int, steps: int) -> dict[str, Any]:
    return {
        "model": {"type": "catalog", "name": "tiny"},
        "method": {"type": "diffusion_dpo", "dataset": {"type": "stored", "id": dataset_id}, "beta": 500},
        "adapter": {"type": "lora", "rank": 2},
        "training": {"steps": steps, "batch_size": 2, "gradient_accumulation_steps": 1, "learning_rate": 1e-3},
        "checkpoints": {"every": EVERY},
        "resources": {"processes": processes, "device": "cpu"},
    }


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:.*peft:UserWarning", "ignore::FutureWarning")
def test_jobs_run_in_a_process_that_waited_and_in_two_of_which_one_is_killed(
    deployment: Deployment, tmp_path: Path
) -> None:
    worker = deployment.start_worker("only")
    wait_until(lambda: waiting_below(worker.pid), "a process that waits")
    (waiting,) = waiting_below(worker.pid)
    with deployment.client as client:
        pairs = save_pairs(tmp_path / "pairs.parquet")
        dataset = client.wait_for_dataset(client.upload_dataset(pairs).id, timeout_seconds=60).id

        job = client.create_job(spec_of(dataset, 1, 2))
        assert client.wait_for_job(job.id, timeout_seconds=90).status == "succeeded"
        (taken,) = [one for one in (tmp_path / "only.log").read_text().splitlines() if "waiting_trainer_taken" in one]
        assert job.id in taken
        wait_until(lambda: not waiting.is_running(), "the end of what has served its job")

        job = client.create_job(spec_of(dataset, 2, STEPS))
        until(client, job.id, lambda event: isinstance(event.event, CheckpointSaved))
        rank_of(deployment, job.id, 1).kill()
        failed = client.wait_for_job(job.id, timeout_seconds=90)
        assert failed.status == "failed", client.logs(job.id)
        assert failed.error is not None
        assert failed.error.code == "trainer_killed", (
            "whichever was first: the other rank's broken connection, or torchrun"
        )
        assert failed.error.message.startswith("process 2 of 2 (rank 1) was killed by SIGKILL")
        assert failed.error.retryable
        said = [one.event for one in client.events(job.id) if isinstance(one.event, RunFailed)]
        assert [one.code for one in said] == ["trainer_killed"], "the first one's broken connection is told by nobody"
        wait_until(lambda: not deployment.training_processes(job.id), "the end of the other rank")

        client.resume(job.id)
        job = client.wait_for_job(job.id, timeout_seconds=120)
        assert (job.status, job.attempt, job.progress.percent) == ("succeeded", 2, 100), client.logs(job.id)
        resumed = [one.event for one in client.events(job.id) if isinstance(one.event, RunStarted)][-1]
        assert resumed.resumed_from_step
        assert resumed.examples_per_step == 4
        assert [point.step for point in client.metrics(job.id, keys=["loss"])] == list(range(1, STEPS + 1))
        assert job.latest_checkpoint_id is not None
        aligned = client.download_checkpoint(job.latest_checkpoint_id, tmp_path / "aligned")
    assert loads_into_plain_diffusers(tmp_path / "tiny", aligned)


def waiting_below(pid: int) -> list[psutil.Process]:
    """Training processes without a job, below a worker."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            words = process.cmdline()
            if words[-1:] == ["wait"] and "worker.guard" not in words:
                found.append(process)
    return found


def rank_of(deployment: Deployment, job_id: str, rank: int) -> psutil.Process:
    (found,) = [one for one in deployment.training_processes(job_id) if one.environ().get("RANK") == str(rank)]
    return found


def loads_into_plain_diffusers(folder: Path, aligned: Path) -> bool:
    from diffusers import StableDiffusionPipeline

    model = next(folder.rglob("model_index.json")).parent
    pipeline = StableDiffusionPipeline.from_pretrained(model, local_files_only=True, safety_checker=None)
    pipeline.load_lora_weights(aligned, weight_name=LORA)
    return bool(pipeline.get_active_adapters())
