"""Repeated blocks are compiled once for each shape, within a switch, and nothing else of a network changes."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch._dynamo.utils import counters

from alignment_core.actors import compiled_blocks
from alignment_core.actors.actors import Actors
from alignment_core.actors.compiled_blocks import (
    CACHE,
    compile_blocks,
    counted_graphs,
    lay_channels_last,
    missing_compiler,
    repeated_blocks,
)
from alignment_core.families.sd import StableDiffusion
from alignment_core.load.model import load_model
from alignment_core.spec import LocalSource
from tests.alignment_core.actors.test_actors import KINDS, actors_of, inputs_of
from tests.alignment_core.tiny_flux import save_tiny_flux
from tests.alignment_core.tiny_sd3 import save_tiny_sd3

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # which dynamo looks at


@pytest.fixture(autouse=True)
def shapes_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As runs are: the checks of these tests hold a stack, and blocks would be compiled anew for each depth of it."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


class Compiler:
    """A backend that runs what it is given as it is, and counts it."""

    def __init__(self) -> None:
        torch._dynamo.reset()
        counters.clear()
        self.num_graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        self.num_graphs += 1
        return graph.forward


def pass_of(family: StableDiffusion, actors: Actors, *, compiled: bool) -> list[Tensor]:
    """The policy's prediction, the reference's, and the gradients of both images' difference."""
    inputs = inputs_of(family)
    with actors.compiled() if compiled else nullcontext():
        policy, reference = actors.predict_policy(*inputs), actors.predict_reference(*inputs)
        gradients = torch.autograd.grad((policy - reference).square().sum(), list(actors.trainable().values()))
    return [policy.detach(), reference, *gradients]


def residual_block(channels: int) -> nn.Module:
    """One that is told no timestep."""
    return ResnetBlock2D(in_channels=channels, temb_channels=None, groups=2)  # pyright: ignore[reportArgumentType]


def moved(actors: Actors) -> Actors:
    draws = torch.Generator().manual_seed(1)
    for parameter in actors.trainable().values():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=draws)
    return actors


def test_blocks_of_one_shape_are_one_graph_with_a_gradient_and_one_without() -> None:
    blocks = nn.ModuleList([residual_block(4) for _ in range(3)])

    def run(x: Tensor) -> Tensor:
        for block in blocks:
            x = block(x, None)
        return x

    x, compiler = torch.randn(2, 4, 4, 4), Compiler()
    plain = run(x)
    switch = compile_blocks([blocks], compiler)
    with switch.turned(on=True):
        for num, differentiable in ((2, True), (3, False), (3, True), (3, False)):  # of the first x has no gradient
            with torch.set_grad_enabled(differentiable):
                assert torch.allclose(run(x), plain, atol=1e-6)
            assert compiler.num_graphs == num
    assert torch.equal(run(x), plain)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "checkpointed"), [("lora", False), ("lora", True), ("full", False)])
def test_every_block_is_compiled_once_however_often_policy_and_reference_take_turns(
    kind: str, checkpointed: bool, tiny_model: Path
) -> None:
    family, actors = actors_of(kind, tiny_model)
    if checkpointed:
        family.denoiser.enable_gradient_checkpointing()
    moved(actors)
    with counted_graphs(actors.networks()) as graphs:
        plain = pass_of(family, actors, compiled=False)
    compiler = Compiler()
    actors.compile_with(compiler)
    found = pass_of(family, actors, compiled=True)
    num_graphs = compiler.num_graphs
    assert num_graphs == pytest.approx(len(graphs), abs=0 if not checkpointed else 3)
    for _ in range(2):
        found = pass_of(family, actors, compiled=True)
    assert compiler.num_graphs == num_graphs
    assert not counters["graph_break"]
    assert all(torch.allclose(one, other, rtol=1e-5, atol=1e-6) for one, other in zip(found, plain, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_outside_of_the_switch_a_network_runs_plainly_to_the_bit(kind: str, tiny_model: Path) -> None:
    family, actors = actors_of(kind, tiny_model)
    before, names = pass_of(family, moved(actors), compiled=False), list(actors.denoiser.state_dict())
    compiler = Compiler()
    actors.compile_with(compiler)
    assert all(map(torch.equal, pass_of(family, actors, compiled=False), before))
    with actors.compiled(), actors.computing_in(torch.float32):  # what rounding is measured by
        actors.predict_policy(*inputs_of(family))
    assert compiler.num_graphs == 0
    assert list(actors.denoiser.state_dict()) == names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`")
def test_what_the_compiler_makes_rounds_as_float32_does_and_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    block = residual_block(8)
    x = torch.randn(2, 8, 8, 8)
    monkeypatch.setenv(CACHE, str(tmp_path))

    def outcome() -> list[Tensor]:
        y = block(x, None)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), list(block.parameters()))]

    plain, kept = outcome(), []
    for _ in range(2):
        torch._dynamo.reset()
        with compile_blocks([block]).turned(on=True):
            for found, expected in zip(outcome(), plain, strict=True):
                assert (found - expected).norm() < 1e-5 * expected.norm()
        kept.append(set(tmp_path.rglob("*.so")))
    assert kept[0] == kept[1] != set()


def test_a_transformer_s_blocks_are_those_that_diffusers_calls_repeated(tmp_path: Path, tiny_sdxl: Path) -> None:
    for folder in (save_tiny_sd3(tmp_path / "sd3"), save_tiny_flux(tmp_path / "flux"), tiny_sdxl):
        source = LocalSource(path=str(folder))
        denoiser = load_model(source, device=CPU, frozen_dtype=torch.float32, denoiser_dtype=torch.float32).denoiser
        found = {type(block).__name__ for block in repeated_blocks([denoiser])}
        assert found
        assert found >= set(getattr(denoiser, "_repeated_blocks", None) or ())


def test_with_channels_last_a_network_says_the_same_to_rounding(tiny_model: Path) -> None:
    family, actors = actors_of("lora", tiny_model)
    before = pass_of(family, moved(actors), compiled=False)
    lay_channels_last(actors.networks())
    outputs: list[Tensor] = []
    hook = family.denoiser.down_blocks[0].register_forward_hook(lambda *call: outputs.append(call[2][0]))
    found = pass_of(family, actors, compiled=False)
    hook.remove()
    assert outputs[0].is_contiguous(
        memory_format=torch.channels_last
    )  # through norms and residuals, attention included
    assert all(torch.allclose(one, other, rtol=1e-4, atol=1e-5) for one, other in zip(found, before, strict=True))
    assert all(parameter.is_contiguous() for parameter in actors.trainable().values())


def test_where_a_compiler_is_missing_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert missing_compiler(CPU) == "there is no compiler (no-such-compiler)"
    monkeypatch.setattr(compiled_blocks.importlib.util, "find_spec", lambda name: None)
    assert missing_compiler(torch.device("cuda")) == "triton is not installed"


def test_a_network_without_such_blocks_stays_what_it_is() -> None:
    assert repeated_blocks([nn.Sequential(nn.Linear(2, 2))]) == []
