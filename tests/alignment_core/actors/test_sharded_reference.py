"""The reference in shares changes places with the network, or nothing has changed."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ModelMixin
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from alignment_core.actors.sharded_reference import ShardedFullWeights
from alignment_core.load.model import load_model
from alignment_core.spec import LocalSource

ALLOCATES = ("aten::clone", "aten::empty", "aten::new_empty", "aten::_to_copy", "aten::empty_like")


class RunsOut(TorchDispatchMode):
    """Has room for so many tensors more."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name().partition(".")[0] in ALLOCATES:
            self.room -= 1
            if self.room < 0:
                raise torch.OutOfMemoryError("no room")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def store(tiny_model: Path) -> tuple[ShardedFullWeights, torch.nn.Module, dict[str, Tensor]]:
    """The store, the network that it began as, and a reference that has moved; whole, as shares of one process are."""
    source = LocalSource(path=str(tiny_model))
    family = load_model(source, device=torch.device("cpu"), frozen_dtype=torch.float32, denoiser_dtype=torch.float32)
    frozen = family.denoiser
    assert isinstance(frozen, ModelMixin)
    weights = ShardedFullWeights(copy.deepcopy(frozen), frozen)
    return weights, frozen, {name: value + 1 for name, value in weights.initial().items()}


def copied(values: Iterator[tuple[str, Tensor]]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in values}


def assert_same(found: Iterator[tuple[str, Tensor]], expected: dict[str, Tensor]) -> None:
    assert all(torch.equal(value, expected[name]) for name, value in found)


@pytest.mark.parametrize("room", [0, 1, 2, 10])
def test_a_lack_of_memory_leaves_no_network_that_is_mixed(
    room: int, store: tuple[ShardedFullWeights, torch.nn.Module, dict[str, Tensor]]
) -> None:
    weights, frozen, reference = store
    initial, moved = copied(frozen.named_parameters()), copied(iter(reference.items()))
    try:
        with RunsOut(room), weights.denoiser(reference):
            pass
    except torch.OutOfMemoryError:
        assert room == 0, "room for one weight is enough"
    assert_same(frozen.named_parameters(), initial)
    assert_same(iter(reference.items()), moved)


def test_inside_the_network_is_the_reference(
    store: tuple[ShardedFullWeights, torch.nn.Module, dict[str, Tensor]],
) -> None:
    weights, frozen, reference = store
    initial, moved = copied(frozen.named_parameters()), copied(iter(reference.items()))
    with weights.denoiser(reference) as network:
        assert network is frozen
        assert_same(network.named_parameters(), moved)
        assert_same(iter(reference.items()), initial)
    assert_same(frozen.named_parameters(), initial)
