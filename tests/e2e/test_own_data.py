"""A folder as people have it, uploaded with what its columns mean, trains to the weights that the same parquet trains to."""

import csv
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


def weights_of(client: Client, dataset_id: str, folder: Path) -> dict[str, np.ndarray]:
    spec = {
        "model": {"type": "catalog", "name": "shapes"},
        "method": {"type": "diffusion_dpo", "dataset": {"type": "stored", "id": dataset_id}, "beta": 1000},
        "adapter": {"type": "lora", "rank": 4},
        "training": {"steps": 4, "batch_size": 4, "gradient_accumulation_steps": 1, "learning_rate": 1e-3},
        "resources": {"num_cpu_threads": 1},
        "seed": 3,
    }
    job = client.wait_for_job(client.create_job(spec).id, timeout_seconds=200)
    assert job.status == "succeeded", job.error
    return load_file(
        client.download_checkpoint(client.result_checkpoint(job.id), folder) / "pytorch_lora_weights.safetensors"
    )


@pytest.mark.parametrize("deployment", ["embedded"], indirect=True)
def test_a_folder_with_columns_of_its_own_trains_to_the_same_weights(deployment: Deployment, tmp_path: Path) -> None:
    rows = [
        {name: row[name] for name in ("prompt", "chosen", "rejected")}
        for row in pq.read_table(ASSETS / "pairs.parquet").slice(0, 40).to_pylist()
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
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
