"""A folder as people have it, uploaded with what its columns mean, trains to the weights that the same parquet trains to; and a sweep
is started with a file that is on this machine alone."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from attune.client import Client
from tests.e2e.conftest import ASSETS, Deployment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

COLUMNS = {"prompt": "caption", "image_0": "image_a", "image_1": "image_b", "winner": "better"}


def some_pairs(path: Path) -> list[dict[str, Any]]:
    """Forty of the demo's, written as `path`."""
    rows = [
        {name: row[name] for name in ("prompt", "chosen", "rejected")}
        for row in pq.read_table(ASSETS / "pairs.parquet").slice(0, 40).to_pylist()
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return rows


def as_csv(rows: list[dict[str, Any]], folder: Path) -> Path:
    """Which side the better image is on changes from row to row."""
    folder.mkdir()
    with (folder / "judged.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["caption", "image_a", "image_b", "better"])
        for index, row in enumerate(rows):
            sides = ("chosen", "rejected") if index % 2 else ("rejected", "chosen")
            names = [f"{index}{letter}.png" for letter in "ab"]
            for name, side in zip(names, sides, strict=True):
                (folder / name).write_bytes(row[side])
            writer.writerow([row["prompt"], *names, "b" if sides[1] == "chosen" else "a"])
    return folder


def spec_of(**dataset: str) -> dict[str, Any]:
    return {
        "model": {"type": "catalog", "name": "shapes"},
        "method": {"type": "diffusion_dpo", "dataset": dataset, "beta": 1000},
        "adapter": {"type": "lora", "rank": 4},
        "training": {"steps": 4, "batch_size": 4, "gradient_accumulation_steps": 1, "learning_rate": 1e-3},
        "resources": {"num_cpu_threads": 1},
        "seed": 3,
    }


def weights_of(client: Client, dataset_id: str, folder: Path) -> dict[str, np.ndarray]:
    job = client.wait_for_job(client.create_job(spec_of(type="stored", id=dataset_id)).id, timeout_seconds=200)
    assert job.status == "succeeded", job.error
    return load_file(
        client.download_checkpoint(client.result_checkpoint(job.id), folder) / "pytorch_lora_weights.safetensors"
    )


@pytest.mark.parametrize("deployment", ["embedded"], indirect=True)
def test_a_folder_with_columns_of_its_own_trains_to_the_same_weights(deployment: Deployment, tmp_path: Path) -> None:
    rows = some_pairs(tmp_path / "pairs.parquet")
    deployment.start_worker("only")
    with deployment.client as client:
        uploads = [
            client.upload_dataset(tmp_path / "pairs.parquet"),
            client.upload_dataset(as_csv(rows, tmp_path / "mine"), columns=COLUMNS),
        ]
        ready = [client.wait_for_dataset(dataset.id, timeout_seconds=100) for dataset in uploads]
        assert [dataset.num_usable_rows for dataset in ready] == [40, 40]
        parquet, folder = (
            weights_of(client, dataset.id, tmp_path / f"weights-{index}") for index, dataset in enumerate(ready)
        )
    assert parquet.keys() == folder.keys()
    assert all(np.array_equal(parquet[name], folder[name]) for name in parquet)


@pytest.mark.parametrize("deployment", ["embedded"], indirect=True)
def test_a_sweep_is_started_with_a_file_that_is_uploaded_first(deployment: Deployment, tmp_path: Path) -> None:
    """The spec names a file of this machine, which the server would not read; `--dataset` brings it there and the trials are trained on it."""
    some_pairs(tmp_path / "pairs.parquet")
    body = {
        "spec": spec_of(type="local", path=str(tmp_path / "pairs.parquet")),
        "search": {"type": "grid", "axes": {"training.learning_rate": [1e-3, 1e-4]}},
        "at_once": 2,
    }
    (tmp_path / "sweep.json").write_text(json.dumps(body))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more PAR1")
    deployment.start_worker("only")
    with deployment.client as client:

        def start(*options: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "attune", "sweep", "start", "sweep.json", *options]
            url = f"http://127.0.0.1:{deployment.port}"
            return subprocess.run([*command, "--url", url], capture_output=True, text=True, timeout=120, cwd=tmp_path)

        assert "local_path_refused" in (refused := start()).stderr or "upload it" in refused.stderr
        unusable = start("--dataset", "broken.parquet")
        assert (unusable.returncode != 0, "broken.parquet" in unusable.stderr) == (True, True)
        assert list(client.sweeps()) == []
        started = start("--dataset", "pairs.parquet")
        assert started.returncode == 0, started.stderr
        (dataset,) = (one for one in client.datasets() if one.filename == "pairs.parquet")
        trials = client.get_sweep(started.stdout.strip()).table.trials
        done = [client.wait_for_job(str(one.job_id), timeout_seconds=200) for one in trials]
        assert [job.status for job in done] == ["succeeded", "succeeded"]
        assert {job.spec["method"]["dataset"]["id"] for job in done} == {dataset.id}
        folders = [client.download_checkpoint(str(job.result_checkpoint_id), tmp_path / job.id) for job in done]
    fast, slow = (load_file(folder / "pytorch_lora_weights.safetensors") for folder in folders)
    assert any(not np.array_equal(fast[name], slow[name]) for name in fast)
