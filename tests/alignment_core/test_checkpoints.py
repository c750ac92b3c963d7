"""A checkpoint is whole or it is not there, and it says when it was altered."""

from pathlib import Path

import pytest
import torch

from alignment_core.checkpoints import (
    STATE,
    Manifest,
    TrainingState,
    begin,
    commit,
    complete,
    latest,
    load_optimizer_tensors,
    load_state,
    load_tensors,
    new_manifest,
    optimizer_tensors,
    prune,
    read_manifest,
    save_state,
    save_tensors,
    verify,
)
from alignment_core.errors import CheckpointError


def manifest_of(step: int) -> Manifest:
    return new_manifest(
        step=step,
        kind="lora",
        is_final=False,
        spec={},
        spec_sha256="0",
        base_model_sha256="0",
        dataset_sha256="0",
        versions={"attune": "0"},
    )


def save(folder: Path, step: int) -> Path:
    temporary = begin(folder, step)
    save_tensors(temporary / STATE / "optimizer.safetensors", {"weight/exp_avg": torch.arange(4.0)})
    save_state(temporary, TrainingState(step=step))
    return commit(temporary, manifest_of(step))


def test_a_checkpoint_verifies_and_lists_every_file(tmp_path: Path) -> None:
    folder = save(tmp_path, 3)
    assert {file.path for file in verify(folder).files} == {
        "training_state/optimizer.safetensors",
        "training_state/state.json",
    }
    assert latest(tmp_path) == folder


def test_a_write_that_was_cut_off_is_not_a_checkpoint(tmp_path: Path) -> None:
    done = save(tmp_path, 1)
    unfinished = begin(tmp_path, 2)
    assert latest(tmp_path) == done
    save(tmp_path, 2)
    assert not unfinished.exists()
    assert [read_manifest(folder).step for folder in complete(tmp_path)] == [1, 2]


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_damage_is_named(damage: str, tmp_path: Path) -> None:
    file = save(tmp_path, 1) / STATE / "state.json"
    if damage == "missing":
        file.unlink()
    else:
        file.write_text(file.read_text().replace("1", "2"))
    with pytest.raises(CheckpointError, match=r"state\.json"):
        verify(tmp_path / "step-00000001")


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, 1)
    verify(save(tmp_path, 1))
    assert len(complete(tmp_path)) == 1


def test_pruning_keeps_the_newest(tmp_path: Path) -> None:
    for step in (5, 100, 20):
        save(tmp_path, step)
    prune(tmp_path, 2)
    assert [read_manifest(folder).step for folder in complete(tmp_path)] == [20, 100]


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "optimizer.safetensors"
    path.write_bytes(b"\x80\x04pickle")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_tensors(path)


def test_optimizer_state_survives_the_trip(tmp_path: Path) -> None:
    def stepped() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
        layer(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        return layer, optimizer

    layer, optimizer = stepped()
    names = [name for name, _ in layer.named_parameters()]
    save_tensors(tmp_path / "o.safetensors", optimizer_tensors(optimizer, names))
    fresh = torch.optim.AdamW(layer.parameters(), lr=0.1)
    load_optimizer_tensors(fresh, names, load_tensors(tmp_path / "o.safetensors"))
    for parameter in layer.parameters():
        assert fresh.state[parameter].keys() == optimizer.state[parameter].keys()
        assert all(torch.equal(fresh.state[parameter][key], value) for key, value in optimizer.state[parameter].items())
    with pytest.raises(CheckpointError, match="no such parameter"):
        load_optimizer_tensors(fresh, ["weight"], load_tensors(tmp_path / "o.safetensors"))


def test_the_loss_scale_survives_the_trip(tmp_path: Path) -> None:
    scaler = torch.amp.GradScaler("cpu", growth_interval=7)
    temporary = begin(tmp_path, 1)
    save_state(temporary, TrainingState(step=1, loss_scaler=scaler.state_dict()))
    saved = load_state(temporary).loss_scaler
    assert saved == scaler.state_dict()
    fresh = torch.amp.GradScaler("cpu")
    fresh.load_state_dict(saved)
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    fresh.scale(parameter.sum()).backward()
    fresh.step(optimizer)
    fresh.update()  # a growth interval that became a float would fail here
    assert parameter.item() == pytest.approx(0.9)
