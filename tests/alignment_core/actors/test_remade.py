"""Activations that are made anew: the same numbers to the bit, and less that is kept for a backward."""

import copy
import gc
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from alignment_core.actors.actors import Actors
from alignment_core.actors.build import full_actors, lora_actors
from alignment_core.actors.remade import in_float32, remake
from alignment_core.families.family import Family
from alignment_core.load.model import load_model
from alignment_core.spec import LocalSource
from benchmarks.living_bytes import LivingBytes
from tests.alignment_core.families.tiny_models import TINY

torch.set_num_threads(1)

Around = Callable[[], AbstractContextManager[object]]
NUM = 2


@pytest.fixture(scope="module")
def family_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Family]:
    @cache
    def load(name: str) -> Family:
        source, dtype = LocalSource(path=str(TINY[name](tmp_path_factory.mktemp(name)))), torch.float32
        return load_model(source, device=torch.device("cpu"), frozen_dtype=dtype, denoiser_dtype=dtype)

    return load


def actors_of(
    family: Family,
    kind: str,
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0"),
    *,
    is_checkpointed: bool = False,
) -> Actors:
    denoiser: Any = copy.deepcopy(family.denoiser)
    if is_checkpointed:
        denoiser.enable_gradient_checkpointing()
    if kind == "full":
        return full_actors(family, denoiser, autocast=nullcontext)
    how: Any = {"rank": 2, "alpha": 2.0, "target_modules": targets, "seed": 0, "autocast": nullcontext}
    actors = lora_actors(family, denoiser, **how)
    with torch.no_grad():
        for parameter in actors.trainable().values():
            parameter += 0.1
    return actors


def stock(network: nn.Module) -> nn.Module:
    """The same network with the libraries' own forwards, but for those of a LoRA."""
    plain = copy.deepcopy(network)
    for layer in plain.modules():
        if not isinstance(layer, LoraLayer):
            layer.__dict__.pop("forward", None)
    return plain


def predict(family: Family, network: nn.Module, around: Around) -> Tensor:
    x_t = torch.randn(NUM, *family.latent_shape(family.resolution), generator=torch.Generator().manual_seed(7))
    times = family.path.time(torch.tensor([family.path.num_timesteps // 10, family.path.num_timesteps // 2]))
    with around():
        return family.predict(network, x_t, times, family.sampling_conditioning(["a red circle"] * NUM)).float()


def outcome(family: Family, network: nn.Module, around: Around, num_backwards: int = 1) -> list[Tensor]:
    """Output and gradients, each gradient of so many backwards in turn."""
    y = predict(family, network, around)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    loss = y.square().sum()
    found = [
        gradient
        for last in range(num_backwards - 1, -1, -1)
        for gradient in torch.autograd.grad(loss, trained, retain_graph=last > 0, allow_unused=True)
    ]
    return [y.detach(), *[gradient for gradient in found if gradient is not None]]


def kept_bytes(family: Family, network: nn.Module) -> int:
    """What a forward leaves behind."""
    with LivingBytes() as meter:
        with torch.no_grad():
            predict(family, network, nullcontext)
        before = meter.now
        y = predict(family, network, nullcontext)
        left = meter.now - before - y.nbytes
    return left


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected) > 4
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def bfloat16() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux"])
def test_output_and_gradients_are_those_of_the_libraries_forwards_to_the_bit(
    name: str, kind: str, family_of: Callable[[str], Family]
) -> None:
    family = family_of(name)
    own = actors_of(family, kind).denoiser
    plain = stock(own)
    for around in (nullcontext, bfloat16):
        assert_equal(outcome(family, own, around, 2), outcome(family, plain, around, 2))


@pytest.mark.parametrize(
    ("name", "kind", "share"),
    [("sd", "lora", 0.72), ("sd", "full", 0.66), ("sdxl", "lora", 0.75), ("sd3", "full", 0.95)],
)
def test_a_forward_keeps_less(name: str, kind: str, share: float, family_of: Callable[[str], Family]) -> None:
    family = family_of(name)
    own = actors_of(family, kind).denoiser
    assert kept_bytes(family, own) <= share * kept_bytes(family, stock(own))


def test_a_lora_of_convolutions_and_of_feed_forwards_has_the_same_numbers(family_of: Callable[[str], Family]) -> None:
    family = family_of("sd")
    own = actors_of(family, "lora", ("conv1", "conv2", "ff.net.2", "ff.net.0.proj", "proj_in", "to_q")).denoiser
    assert_equal(outcome(family, own, nullcontext), outcome(family, stock(own), nullcontext))


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_blocks_that_are_computed_again_are_left_as_they_are(kind: str, family_of: Callable[[str], Family]) -> None:
    family = family_of("sd")
    networks = [actors_of(family, kind, is_checkpointed=is_checkpointed).denoiser for is_checkpointed in (True, False)]
    norms = [layer for layer in networks[0].modules() if isinstance(layer, nn.GroupNorm)]
    assert norms
    assert not any("forward" in norm.__dict__ for norm in norms)
    assert_equal(*(outcome(family, network.train(), nullcontext) for network in networks))


def test_what_is_kept_goes_with_the_graph(family_of: Callable[[str], Family]) -> None:
    family = family_of("sd")
    own = actors_of(family, "lora").denoiser
    with LivingBytes() as meter:
        outcome(family, own, nullcontext)
        gc.collect()
        before = meter.now
        gc.disable()  # nothing may wait for a collector
        outcome(family, own, nullcontext)
        after = meter.now
        gc.enable()
    assert after == before


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.act, self.conv = nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.act(self.norm(x)))


def test_a_copy_of_a_network_computes_with_its_own_weights() -> None:
    block = Block()
    remake(block)
    other, x = copy.deepcopy(block), torch.randn(1, 4, 5, 5)
    with torch.no_grad():
        other.conv.weight.zero_()
    assert other(x).std(dim=(2, 3)).eq(0).all()
    assert block(x).std(dim=(2, 3)).ne(0).all()


def test_derivatives_of_derivatives_are_the_same() -> None:
    block, x = Block(), torch.randn(1, 4, 5, 5, requires_grad=True)
    plain = copy.deepcopy(block)
    remake(block)

    def second(of: nn.Module) -> list[Tensor]:
        (slope,) = torch.autograd.grad(of(x).square().sum(), x, create_graph=True)
        return list(torch.autograd.grad(slope.square().sum(), [x, *of.parameters()], allow_unused=True))

    ours, theirs = ([one for one in second(of) if one is not None] for of in (block, plain))
    assert all(torch.allclose(one, other, rtol=1e-5, atol=1e-6) for one, other in zip(ours, theirs, strict=True))


def test_a_compiler_sees_the_libraries_forwards() -> None:
    block = Block()
    remake(block)
    x = torch.randn(1, 4, 5, 5, requires_grad=True)
    compiled = torch.compile(block, backend="eager", fullgraph=True)  # which refuses what it cannot trace
    assert torch.equal(compiled(x), F.conv2d(F.silu(block.norm(x)), block.conv.weight, block.conv.bias, padding=1))


def test_of_a_half_that_a_norm_reads_in_float32_the_half_is_kept() -> None:
    """As autocast has it on a GPU."""
    norm, found = nn.Sequential(nn.GroupNorm(2, 8), nn.SiLU()), []
    remake(norm)
    x = torch.randn(2, 8, 16, 16).bfloat16()
    for read in (in_float32, torch.Tensor.float):
        with LivingBytes() as meter:
            half = x.clone().requires_grad_()
            before = meter.now
            y = norm(read(half))
            kept = meter.now - before - y.nbytes
            found.append((y.detach(), *torch.autograd.grad(y.square().sum(), [half, *norm.parameters()])))
            del y
        assert (kept < 0.1 * half.nbytes) == (read is in_float32)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
