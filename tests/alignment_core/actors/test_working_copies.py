"""Weights that are rounded once: what autocast makes of float32 weights in every forward, to the bit."""

import copy
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.normalization import RMSNorm
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from alignment_core import align
from alignment_core.actors.actors import Actors
from alignment_core.actors.build import full_actors, lora_actors
from alignment_core.actors.working_copies import WorkingCopies, hold_in_half
from alignment_core.events import EvaluationCompleted, Event, PrecisionMeasured, StepCompleted
from alignment_core.families.family import Family
from alignment_core.load.model import load_model
from alignment_core.spec import LocalSource
from tests.alignment_core.families.tiny_models import TINY
from tests.alignment_core.load.test_loading import loaded
from tests.alignment_core.tiny import tiny_spec

torch.set_num_threads(1)

FAMILIES = ("sd", "sdxl", "sd3", "flux")
HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
Loaded = Callable[[str, torch.dtype], Family]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    @cache
    def folder(name: str) -> Path:
        return TINY[name](tmp_path_factory.mktemp(name))

    @cache
    def loaded(name: str, dtype: torch.dtype) -> Family:
        source = LocalSource(path=str(folder(name)))
        return load_model(source, device=torch.device("cpu"), frozen_dtype=torch.float32, denoiser_dtype=dtype)

    return loaded


def actors_of(family: Family, kind: str, dtype: torch.dtype, *, is_checkpointed: bool = False) -> Actors:
    denoiser: Any = copy.deepcopy(family.denoiser)
    around = partial(torch.autocast, "cpu", dtype)
    if is_checkpointed:
        denoiser.enable_gradient_checkpointing()
    if kind == "full":
        return full_actors(family, denoiser, autocast=around)
    targets = ("to_q", "to_k", "to_v", "to_out.0")
    return lora_actors(family, denoiser, rank=2, alpha=2.0, target_modules=targets, seed=0, autocast=around)


@torch.no_grad()
def moved(actors: Actors, towards: Actors) -> None:
    """Give `actors` what the other is trained to, a little farther: a LoRA's A is drawn in the precision of its base."""
    draws = torch.Generator().manual_seed(3)
    for name, parameter in actors.trainable().items():
        step = 0.02 * torch.randn(parameter.shape, generator=draws)
        parameter.copy_(towards.trainable()[name] + step)


def outcome(actors: Actors) -> list[Tensor]:
    """What reference and policy say, a loss of both, and its gradients."""
    family = actors.family
    assert isinstance(family, Family)
    x_t = torch.randn(2, *family.latent_shape(family.resolution), generator=torch.Generator().manual_seed(7))
    times = family.path.time(torch.tensor([family.path.num_timesteps // 10, family.path.num_timesteps // 2]))
    conditioning = family.sampling_conditioning(["a red circle"] * 2)
    reference = actors.predict_reference(x_t, times, conditioning)
    policy = actors.predict_policy(x_t, times, conditioning)
    loss = (policy - reference).square().sum() + policy.square().sum()
    found = torch.autograd.grad(loss, list(actors.trainable().values()), allow_unused=True)
    assert all(one is None or one.dtype == torch.float32 for one in found)
    return [reference, policy.detach(), loss.detach(), *[one for one in found if one is not None]]


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected) > 8
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@HALVES
@pytest.mark.filterwarnings("ignore:Mismatch dtype")
@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize("name", FAMILIES)
def test_forwards_losses_and_gradients_are_those_of_autocast_over_float32_weights_to_the_bit(
    name: str, kind: str, dtype: torch.dtype, load: Loaded
) -> None:
    plain = actors_of(load(name, torch.float32), kind, dtype)
    held = actors_of(load(name, dtype if kind == "lora" else torch.float32), kind, dtype)
    held.copy_weights_in(dtype)
    if kind == "full":
        held.keep_initial_in(dtype, dict)
    else:  # queries and keys are normed in the precision that they have
        for layer in plain.denoiser.modules():
            if isinstance(layer, nn.RMSNorm | RMSNorm):
                layer.to(dtype)
    for actors in (held, plain):
        moved(actors, plain)
    assert_equal(outcome(held), outcome(plain))  # not followed yet: nothing is taken from what was
    held.follow_weights()
    assert_equal(outcome(held), outcome(plain))


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_blocks_that_are_computed_again_read_the_copies_too(kind: str, load: Loaded) -> None:
    dtype, family = torch.bfloat16, load("sd", torch.float32)
    plain, held = (actors_of(family, kind, dtype, is_checkpointed=True) for _ in range(2))
    held.copy_weights_in(dtype)
    for actors in (held, plain):
        actors.denoiser.train()
        moved(actors, plain)
    held.follow_weights()
    assert_equal(outcome(held), outcome(plain))


class Casts(TorchDispatchMode):
    """Counts conversions to half precision of the tensors that it was given."""

    def __init__(self, of: list[Tensor]) -> None:
        super().__init__()
        self.places, self.num = {one.data_ptr() for one in of}, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and args[0].data_ptr() in self.places:
            self.num += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_no_weight_is_cast_in_a_forward(kind: str, load: Loaded) -> None:
    dtype = torch.bfloat16
    held = actors_of(load("sd", dtype if kind == "lora" else torch.float32), kind, dtype)
    plain = actors_of(load("sd", torch.float32), kind, dtype)
    held.copy_weights_in(dtype)
    if kind == "full":
        held.keep_initial_in(dtype, dict)
    counted = []
    for actors in (held, plain):
        networks = [actors.denoiser, *actors.networks()]
        with Casts([weight.data for network in networks for weight in network.parameters()]) as casts:
            outcome(actors)
        counted.append(casts.num)
    assert counted[0] == 0
    assert counted[1] > 50


def test_norms_of_a_network_in_half_precision_stay_as_their_file_has_them(load: Loaded) -> None:
    half, whole = load("sd", torch.bfloat16).denoiser, load("sd", torch.float32).denoiser
    norms = [name for name, layer in whole.named_modules() if isinstance(layer, nn.GroupNorm | nn.LayerNorm)]
    assert norms
    for name in norms:
        for kept, stored in zip(
            half.get_submodule(name).parameters(), whole.get_submodule(name).parameters(), strict=True
        ):
            assert torch.equal(kept, stored)
            assert kept.dtype == torch.float32
    assert half.get_submodule("conv_in").get_parameter("weight").dtype == torch.bfloat16


def test_copies_are_left_out_where_another_precision_is_computed_in_and_when_they_are_given_back() -> None:
    layer, x = nn.Sequential(nn.Linear(4, 4)), torch.randn(2, 4)
    expected = copy.deepcopy(layer)(x)
    copies = WorkingCopies(layer, torch.bfloat16)
    assert torch.equal(layer(x), expected)
    for parameter in layer.parameters():
        parameter.data.zero_()  # behind autograd's back, as no optimiser of ours does without `follow`
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).any()
        with copies.left_out():
            assert not layer(x).any()
        copies.release()
        assert not layer(x).any()
    with torch.autocast("cpu", torch.float16):
        assert not layer(x).any()


def test_what_is_trained_is_never_rounded_for_good() -> None:
    with pytest.raises(AssertionError, match="what is trained"):
        hold_in_half(nn.Sequential(nn.Linear(2, 2)), torch.bfloat16)


@pytest.mark.parametrize(
    "adapter",
    [
        pytest.param({"type": "lora", "rank": 2}, id="lora", marks=pytest.mark.slow),
        pytest.param({"type": "full"}, id="full"),
    ],
)
def test_a_run_measures_trains_and_reports_what_it_does_without_copies(
    adapter: dict[str, Any],
    tiny_model: Path,
    tiny_pairs: Path,
    tmp_path: Path,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training = {
        "steps": 3,
        "batch_size": 1,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "precision": "bf16",
    }
    spec = tiny_spec(tiny_model, tiny_pairs, adapter=adapter, training=training)
    held = told(list(align(spec, tmp_path / "held", cache_dir=cache_dir)))
    monkeypatch.setattr("alignment_core.load.run.hold_in_half", lambda *_, **__: None)
    plain = told(list(align(spec, tmp_path / "plain", cache_dir=cache_dir)))
    assert len(held) == 5
    assert held == plain


def told(events: list[Event]) -> list[object]:
    """The numbers of a run: its steps, the error of its logits, and how far the report finds that its weights have moved."""
    (report,) = [event.report for event in events if isinstance(event, EvaluationCompleted)]
    steps = [event.metrics for event in events if isinstance(event, StepCompleted)]
    measured = [event.model_dump(exclude={"time"}) for event in events if isinstance(event, PrecisionMeasured)]
    return [*steps, *measured, report["drift"]]


def test_the_reference_of_a_full_fine_tune_takes_half_the_memory(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path
) -> None:
    training = {"steps": 1, "batch_size": 1, "gradient_accumulation_steps": 1, "precision": "bf16"}
    run = loaded(tiny_spec(tiny_model, tiny_pairs, adapter={"type": "full"}, training=training).resolved(), cache_dir)
    policy, initial = (sum(one.nbytes for one in network.parameters()) for network in run.actors.networks())
    assert initial < 0.53 * policy
    with run.actors.initial_weights() as weights:
        for name, parameter in run.actors.trainable().items():
            assert torch.equal(weights[name], parameter)
