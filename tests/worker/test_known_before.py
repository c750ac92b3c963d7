"""Nothing valid fails for a reason that was known: what a run would refuse is refused at POST, once a real worker read the model."""

import json
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from starlette.testclient import TestClient

from service.main import create_app
from service.store import datasets
from service.store.catalog import Catalog
from service.store.database import open_store
from service.store.migrations import migrate
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.uploads import DatasetRecord
from tests.alignment_core.families.tiny_models import TINY
from tests.alignment_core.tiny import save_pairs
from tests.worker.conftest import World, settings_in
from worker.dataset import prepare_dataset
from worker.models import read_models

DEMO = Path(__file__).parents[2] / "demo" / "assets"
LIBRARY = (sys.executable, "-P", "-m", "alignment_core")
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
UNREAD = "unread"
DEEP = "down_blocks.9.attentions.0.transformer_blocks.0.attn1.to_q"


@dataclass
class Known:
    """An API whose worker has read everything: the models of its catalog, a data set and two LoRAs."""

    client: TestClient
    dataset: str
    lora: str

    def errors_of(self, changes: dict[str, Any]) -> list[tuple[str, str]]:
        """Pointer and code, the same by `validate` and by `POST`."""
        body = {"spec": self._spec(changes)}
        told = self.client.post("/v1/jobs/validate", json=body).json()["errors"]
        assert self.client.post("/v1/jobs", json=body).json().get("errors", []) == told
        return [(one["pointer"].removeprefix("/spec/"), one["code"]) for one in told]

    def warnings_of(self, changes: dict[str, Any]) -> str:
        return " ".join(self.client.post("/v1/jobs/validate", json={"spec": self._spec(changes)}).json()["warnings"])

    def _spec(self, changes: dict[str, Any]) -> dict[str, Any]:
        method = {"type": "diffusion_dpo", "dataset": self.dataset, **changes.get("method", {})}
        if "prompts" in method:
            del method["dataset"]
        written = {"model": "shapes", **changes, "method": method}
        return json.loads(json.dumps(written).replace("THE_LORA", self.lora))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    root = tmp_path_factory.mktemp("known")
    settings = settings_in(root).model_copy(update={"catalog_path": catalog_in(root), "worker_devices": ("cpu",)})
    migrate(settings.resolved_database_url)
    store = open_store(settings.resolved_database_url)
    world = World(root, store, settings)
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        catalog = client.app.state.parts.catalog  # pyright: ignore[reportAttributeAccessIssue, reportFunctionMemberAccess]
        worker = replace(world.worker(), catalog=catalog_of_worker(catalog), trainer=LIBRARY)
        uploaded = [
            client.post(f"/v1/{path}", files={"file": (file.name, file.read_bytes())}).json()["id"]
            for path, file in (("datasets", save_pairs(root / "pairs.parquet")), ("weights", lora_in(root)))
        ]
        with ThreadPoolExecutor(2) as pool:
            reading = pool.submit(read_models, worker)
            for one in uploaded:
                prepare_dataset(worker, one)
                assert ready(world, one).error is None
            reading.result()
        yield Known(client, *uploaded)
    store.close()


def catalog_of_worker(catalog: Catalog) -> Catalog:
    read = {name: entry for name, entry in catalog.models.items() if name != UNREAD}
    return catalog.model_copy(update={"models": read})


def ready(world: World, dataset_id: str) -> DatasetRecord:
    found = datasets.get(world.store, DEFAULT_PROJECT_ID, dataset_id)
    assert found is not None
    return found


def catalog_in(root: Path) -> Path:
    """The demo's model, and a tiny one of another family that lacks a weight, each read in a process; and one that nobody read."""
    shutil.copytree(DEMO / "model", root / "shapes")
    partial = TINY["flux"](root / "partial")
    tensors = load_file(partial / TRANSFORMER)
    save_file({name: value for name, value in tensors.items() if name != "x_embedder.bias"}, partial / TRANSFORMER)
    entries = {
        name: {"type": "local", "path": str(path), "family": family, "resolution": 32}
        for name, path, family in (
            ("shapes", root / "shapes", "sd"),
            ("partial", partial, "flux"),
            (UNREAD, root / UNREAD, "flux"),
        )
    }
    judge = {"type": "attribute_classifier", "path": str(DEMO / "classifiers" / "reward")}
    (root / "catalog.json").write_text(json.dumps({"models": entries, "rewards": {"shapes-reward": judge}}))
    return root / "catalog.json"


def lora_in(root: Path) -> Path:
    """A LoRA of a model with more blocks than the demo's."""
    layer = f"unet.{DEEP}"
    save_file(
        {f"{layer}.lora_A.weight": torch.zeros(4, 8), f"{layer}.lora_B.weight": torch.zeros(8, 4)},
        root / "deep.safetensors",
    )
    return root / "deep.safetensors"


ONLINE = {"type": "ddpo", "prompts": ["a red circle"], "reward": "brightness", "num_inference_steps": 4}
JUDGED = {"type": "attribute_classifier", "weights": "shapes-reward"}
TAILOR = {"type": "tailorpo", "prompts": ["a"], "rewards": ["jpeg_size"], "guidance": {}}
REPORT = {"rewards": ["brightness"]}

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a weight that the folder lacks": ({"model": "partial"}, "model", "model_invalid"),
    "target modules that match nothing": (
        {"adapter": {"type": "lora", "target_modules": ["no_such"]}}, "adapter/target_modules", "adapter_target_missing"),
    "guidance along a reward without gradient": ({"method": TAILOR}, "method/rewards/0", "value_error"),
    "no held-out prompts": (
        {"training": {"validation_fraction": 0}, "evaluation": REPORT}, "training/validation_fraction", "value_error"),
    "a resolution far from the model's": (
        {"method": {"transform": {"resolution": 512}}}, "method/transform/resolution", "resolution_unfit"),
    "a device that no worker has": ({"resources": {"device": "cuda"}}, "resources/device", "device_unavailable"),
    "half precision on a CPU": ({"training": {"precision": "fp16"}}, "training/precision", "precision_unsupported"),
    "a guidance that the network is not told": (
        {"training": {"embedded_guidance": 7}}, "training/embedded_guidance", "embedded_guidance_unsupported"),
    "a weighting of v for a model of noise": ({"method": {"v_rescale": "abar"}}, "method/v_rescale", "v_rescale_unsupported"),
    "a weighting of flow for a model of noise": (
        {"method": {"flow_beta": "one_minus_s_squared"}}, "method/flow_beta", "flow_beta_unsupported"),
    "steps without noise": ({"method": {**ONLINE, "eta": 0.001}}, "method/num_trained_steps", "no_noise_to_train_on"),
    "more sampling steps than timesteps": (
        {"evaluation": {"num_inference_steps": 1000}, "model": "shapes"}, "evaluation/num_inference_steps", "sampling_steps_unsupported"),
    "prompts of a probe that a judge cannot read": (
        {"evaluation": {"rewards": [JUDGED], "prompts": ["peace"]}}, "evaluation/prompts", "prompt_not_scorable"),
    "prompts of a rollout that a reward cannot read": (
        {"method": {**ONLINE, "reward": JUDGED, "prompts": ["peace"]}}, "method/prompts", "prompt_not_scorable"),
    "a LoRA of another model": ({"start": {"lora": "THE_LORA"}}, "start/lora/id", "lora_unfit"),
    "a LoRA of another rank": (
        {"start": {"lora": "THE_LORA", "mode": "train"}}, "adapter/rank", "start_unfit"),
    "a model that the catalog does not have": ({"model": "unheard-of"}, "model/name", "unknown_model"),
}  # fmt: skip


@pytest.mark.slow  # four processes read models and data
@pytest.mark.parametrize("reason", REFUSED)
def test_what_a_run_would_refuse_is_refused_at_post(known: Known, reason: str) -> None:
    changes, pointer, code = REFUSED[reason]
    found = known.errors_of(changes)
    assert (pointer, code) in found


@pytest.mark.slow
def test_what_is_valid_is_taken_and_a_batch_larger_than_the_data_is_only_warned_of(known: Known) -> None:
    large = {"training": {"steps": 1, "batch_size": 512, "gradient_accumulation_steps": 1}}
    assert known.errors_of(large) == known.errors_of({}) == known.errors_of({"method": ONLINE}) == []
    assert "every step sees some more than once" in known.warnings_of(large)
    assert "method.beta is 5000" in known.warnings_of({"model": UNREAD}), "by the catalog's word"
