"""An uploaded LoRA is checked by the library's own command and becomes ready, or failed in words about its keys."""

import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from alignment_core.errors import AlignmentError
from alignment_core.model_files import UNPACKED_FROM, UnpackedFrom
from alignment_core.spec import (
    CatalogSource,
    DiffusionDPOSpec,
    JobSpec,
    LocalDataset,
    SingleFileSource,
    StartSpec,
    StoredLora,
)
from alignment_core.spec.places import Sources
from service.store import datasets, keys
from service.store.catalog import Catalog
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.uploads import DatasetRecord
from tests.worker.conftest import World
from worker.dataset import prepare_dataset
from worker.inputs import write_inputs
from worker.parts import WorkerParts
from worker.preparing import starting_places
from worker.sweep import remove_deleted

LIBRARY = (sys.executable, "-m", "alignment_core")


def real_worker(world: World) -> WorkerParts:
    return replace(world.worker(), trainer=LIBRARY)


def uploaded(world: World, path: Path) -> str:
    weights = datasets.create(world.store, project_id=DEFAULT_PROJECT_ID, filename="my style.safetensors", kind="lora")
    key = keys.dataset_key(DEFAULT_PROJECT_ID, weights.id, ".safetensors")
    world.worker().objects.put_file(key, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    datasets.uploaded(world.store, weights.id, size_bytes=path.stat().st_size, sha256=digest, object_key=key)
    return weights.id


def checked(world: World, path: Path) -> DatasetRecord:
    weights_id = uploaded(world, path)
    prepare_dataset(real_worker(world), weights_id)
    found = datasets.get(world.store, DEFAULT_PROJECT_ID, weights_id)
    assert found is not None
    return found


def lora(path: Path, **extra: torch.Tensor) -> Path:
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors = {
        f"{layer}.lora_down.weight": torch.zeros(4, 8),
        f"{layer}.lora_up.weight": torch.zeros(8, 4),
        f"{layer}.alpha": torch.tensor(2.0),
    }
    save_file({**tensors, **extra}, path)
    return path


def test_a_lora_becomes_ready_with_what_it_holds(world: World, tmp_path: Path) -> None:
    found = checked(world, lora(tmp_path / "style.safetensors"))
    assert (found.state, found.error) == ("ready", None)
    assert found.report == {
        "holds": "lora",
        "format": "kohya",
        "num_layers": 1,
        "ranks": [4],
        "alphas": [2.0],
        "changes_text_encoder": False,
        "says_alpha": True,
        "layers": {"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": [8, 8]},
        "shapes": {},
    }


def test_a_file_that_is_no_lora_fails_with_its_key_and_the_users_name_of_the_file(world: World, tmp_path: Path) -> None:
    found = checked(world, lora(tmp_path / "style.safetensors", **{"conv_in.weight": torch.zeros(2)}))
    assert found.state == "failed"
    assert found.error is not None
    assert (found.error.code, found.error.category) == ("lora_invalid", "user")
    assert found.error.message.startswith("my style.safetensors: unknown key 'conv_in.weight'")


def test_a_file_that_only_begins_like_safetensors_fails_as_the_users(world: World, tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    path.write_bytes((2).to_bytes(8, "little") + b"{")
    found = checked(world, path)
    assert found.error is not None
    assert found.error.message == "my style.safetensors: no safetensors file; pickled weights are not read"


def test_the_weights_of_a_spec_are_on_the_machine_before_it_runs(world: World, tmp_path: Path) -> None:
    path = lora(tmp_path / "style.safetensors")
    weights_id, worker = uploaded(world, path), world.worker()
    spec = JobSpec(
        model=CatalogSource(name="shapes"),
        start=StartSpec(lora=StoredLora(id=weights_id)),
        method=DiffusionDPOSpec(dataset=LocalDataset(path="/data")),
    )
    places = starting_places(worker, DEFAULT_PROJECT_ID, spec, tmp_path / "work")
    assert Path(places["weights"][weights_id].path).read_bytes() == path.read_bytes()
    with pytest.raises(AlignmentError, match=r"/start/lora/id: .* do not exist any more"):
        starting_places(worker, "proj_other", spec, tmp_path / "work")


def test_a_model_in_one_file_is_linked_into_the_work_folder_with_its_configs(world: World, tmp_path: Path) -> None:
    """No message of the run names a path of this machine."""
    file, configs = lora(tmp_path / "mine.safetensors"), tmp_path / "configs"
    configs.mkdir()
    spec = JobSpec(model=CatalogSource(name="mine"), method=DiffusionDPOSpec(dataset=LocalDataset(path="/data")))
    places = Sources(models={"mine": SingleFileSource(path=str(file), config=str(configs))})
    workdir = tmp_path / "work"
    write_inputs(spec, places, workdir)
    linked = Sources.model_validate_json((workdir / "sources.json").read_bytes()).models["mine"]
    assert linked == SingleFileSource(path="inputs/models-mine.safetensors", config="inputs/models-mine-config")
    assert (workdir / "inputs/models-mine.safetensors").resolve() == file
    assert (workdir / "inputs/models-mine-config").resolve() == configs


def test_what_a_single_file_was_unpacked_to_goes_a_day_after_the_catalog_has_it_no_more(
    world: World, tmp_path: Path
) -> None:
    worker, file = world.worker(), lora(tmp_path / "mine.safetensors")
    entry = {"type": "single_file", "path": str(file), "family": "sd", "resolution": 512}
    offering = replace(worker, catalog=Catalog.model_validate({"models": {"mine": entry}}))
    cache = worker.settings.resolved_cache_dir / "models"
    folder, leftover = cache / ("0" * 64), cache / ".unpacking-killed"
    leftover.mkdir(parents=True)
    folder.mkdir()
    note = folder / UNPACKED_FROM
    note.write_text(UnpackedFrom.of(file).model_dump_json())

    remove_deleted(worker)
    assert folder.is_dir(), "a run may be reading it"
    for path in (note, leftover):
        os.utime(path, (0, 0))
    remove_deleted(offering)
    assert (folder.is_dir(), leftover.is_dir()) == (True, False)
    remove_deleted(worker)
    assert not folder.exists()

    folder.mkdir()
    note.write_text(UnpackedFrom.of(file).model_dump_json())
    os.utime(note, (0, 0))
    os.utime(file, (1, 1))  # another file under the name
    remove_deleted(offering)
    assert not folder.exists()
