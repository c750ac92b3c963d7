"""Every method that `GET /v1/methods` lists runs as a job over HTTP, from its own example."""

from typing import Any

import httpx
import pytest

from attune.client import Client
from service.api.examples import PROMPTS
from tests.e2e.conftest import ASSETS, Deployment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TINY_EVALUATION = {"seeds_per_prompt": 2, "num_inference_steps": 4, "guidance_scale": 2.5, "bootstrap_resamples": 100}


def methods_of(client: Client) -> list[dict[str, Any]]:
    answer = httpx.get(f"{client.base_url}/v1/methods")
    answer.raise_for_status()
    return answer.json()["data"]


def shortened(spec: dict[str, Any], dataset_id: str) -> dict[str, Any]:
    """The example with a dataset that exists, for two optimiser steps and few inference steps."""
    method = dict(spec["method"])
    if "dataset" in method:
        method["dataset"] = {**method["dataset"], "id": dataset_id}
    return {
        **spec,
        "method": method,
        "training": {**spec["training"], "steps": 2},
        "evaluation": {**spec["evaluation"], **TINY_EVALUATION},
        "resources": {"num_cpu_threads": 1},
    }


@pytest.mark.parametrize("deployment", ["embedded"], indirect=True)
def test_every_listed_method_runs_from_its_example_to_a_checkpoint_and_a_report(deployment: Deployment) -> None:
    deployment.start_worker("only")
    with deployment.client as client:
        dataset = client.wait_for_dataset(client.upload_dataset(ASSETS / "pairs.parquet").id, timeout_seconds=60)
        methods = methods_of(client)
        assert len({method["id"] for method in methods}) >= 7
        jobs = {method["id"]: client.create_job(shortened(method["example"], dataset.id)).id for method in methods}
        for method, job_id in jobs.items():
            job = client.wait_for_job(job_id, timeout_seconds=300)
            assert job.status == "succeeded", (method, job.error)
            assert [saved.step for saved in client.checkpoints(job_id) if saved.is_final] == [2], method
            report = client.report(job_id)
            assert report.method == method
            assert report.num_prompts == len(PROMPTS)
