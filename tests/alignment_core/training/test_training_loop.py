"""The training loop on two weights, a reference that moves and timesteps that count differently, worked by hand.

The network is theta = (0, 0). An example (x, t) loses w(t) x.theta, with w(0) = 1 and w(1) = 2, and pays
|theta - ref|^2 / 2 for being away from the reference, which starts at (1, 1) and goes halfway to theta after each step.
Every step has the same two micro-batches:

    x = (2, 0), (3, 0) at t = 0, 1: mean gradient (2 + 2*3)/2 = 4 in the first weight
    x = (0, 4), (0, 4) at t = 1, 0: mean gradient (2*4 + 4)/2 = 6 in the second

so the gradient of a step's loss is (2, 3), and with theta - ref of the penalty, at learning rates 0.1 and 0.2:

    step 1: gradient (2, 3) + (-1, -1) = (1, 2),          theta = (-0.1, -0.2),    ref = (0.45, 0.4)
    step 2: gradient (2, 3) + (-0.55, -0.6) = (1.45, 2.4), theta = (-0.39, -0.68), ref = (0.03, -0.14)
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from alignment_core.actors.actors import Actors
from alignment_core.actors.build import full_actors
from alignment_core.diffusion.discrete_vp import DiscreteVP
from alignment_core.diffusion.formulas import scaled_linear_abar
from alignment_core.errors import DivergenceError
from alignment_core.events import StepCompleted
from alignment_core.load.accelerator import new_accelerator
from alignment_core.protocols import SignalAgainst, StepLoss, TimestepStrategy
from alignment_core.shapes import PerStep
from alignment_core.timesteps.table import TimestepTally
from alignment_core.training.loop import train
from tests.alignment_core.tiny import tiny_spec

RATES = [0.1, 0.2, 0.3, 0.4]
NO_CLIPPING = 1e30


@dataclass(frozen=True)
class Micro:
    x: Tensor
    timesteps: Tensor


MICROS = (
    Micro(torch.tensor([[2.0, 0.0], [3.0, 0.0]]), torch.tensor([0, 1])),
    Micro(torch.tensor([[0.0, 4.0], [0.0, 4.0]]), torch.tensor([1, 0])),
)


@dataclass
class NoDenoising:
    """The part of a family that actors ask for; nothing here predicts noise."""

    path: DiscreteVP = field(default_factory=lambda: DiscreteVP("epsilon", scaled_linear_abar().float()))
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def predict(self, denoiser: nn.Module, x_t: Tensor, timesteps: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
        return x_t


def theta_of(actors: Actors) -> Tensor:
    (theta,) = actors.trainable().values()
    return theta


@dataclass
class Linear:
    """A method whose example loses x.theta; remembers the steps that it was asked to start from."""

    micros: tuple[Micro, ...] = MICROS
    first_steps: list[int] = field(default_factory=list)
    num_batches: int = 0

    def batches(self, actors: Actors, timesteps: TimestepStrategy, first_step: int) -> Iterator[Micro]:
        self.first_steps.append(first_step)
        while True:
            for micro in self.micros:
                self.num_batches += 1
                yield micro

    def loss(self, actors: Actors, batch: Micro) -> StepLoss:
        per_example = batch.x @ theta_of(actors)
        signal = batch.x.sum(dim=1)
        return StepLoss(per_example, batch.timesteps, signal, {"loss": per_example.detach(), "size": signal})


@dataclass
class Doubling:
    """w(0) = 1 and w(1) = 2; remembers what it may watch."""

    observed: list[tuple[list[int], list[float]]] = field(default_factory=list)
    signal_against: SignalAgainst = "reference"
    step_probabilities: PerStep | None = None

    def sample(self, num: int, generator: Generator) -> Tensor:
        return torch.zeros(num, dtype=torch.int64)

    def reward_scale(self, timesteps: Tensor) -> Tensor:
        return torch.ones(len(timesteps))

    def loss_weight(self, timesteps: Tensor) -> Tensor:
        return 1.0 + timesteps

    def observe(self, timesteps: Tensor, signal: Tensor) -> None:
        self.observed.append((timesteps.tolist(), signal.tolist()))

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


@dataclass
class Halfway:
    """A reference that goes halfway to the policy after each step; the policy pays half the squared distance."""

    weights: Tensor = field(default_factory=lambda: torch.ones(2))
    steps: list[int] = field(default_factory=list)

    def penalty(self, actors: Actors, loss: StepLoss) -> Tensor:
        return ((theta_of(actors) - self.weights).square().sum() / 2).expand(len(loss.per_example))

    def after_step(self, actors: Actors, step: int) -> dict[str, float]:
        self.steps.append(step)
        self.weights = (self.weights + theta_of(actors).detach()) / 2
        return {"reference_norm": self.weights.norm().item()}

    def state_dict(self) -> dict[str, Tensor]:
        return {"weights": self.weights}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.weights = state["weights"]


@dataclass
class Unpaid:
    """A reference that stays and costs nothing."""

    def penalty(self, actors: Actors, loss: StepLoss) -> None:
        return None

    def after_step(self, actors: Actors, step: int) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


def two_weights() -> Actors:
    """Actors whose policy has two trainable weights, both zero: a bias of a network that is otherwise frozen."""
    denoiser = UNet2DConditionModel(
        sample_size=2,
        out_channels=2,
        block_out_channels=(2,),
        layers_per_block=1,
        norm_num_groups=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        mid_block_type=None,
        cross_attention_dim=2,
    )
    actors = full_actors(NoDenoising(), denoiser, autocast=nullcontext)
    denoiser.requires_grad_(False)
    nn.init.zeros_(denoiser.get_parameter("conv_out.bias").requires_grad_(True))
    return actors


@dataclass
class Loop:
    """Everything that `train` is given; `steps` runs it."""

    method: Linear = field(default_factory=Linear)
    timesteps: Doubling = field(default_factory=Doubling)
    reference: Halfway | Unpaid = field(default_factory=Halfway)
    max_grad_norm: float = NO_CLIPPING
    actors: Actors = field(default_factory=two_weights)
    tally: TimestepTally = field(default_factory=lambda: TimestepTally(2))
    optimizer: Optimizer = field(init=False)

    def __post_init__(self) -> None:
        accelerator = new_accelerator(tiny_spec(Path("model"), Path("pairs")))  # two micro-batches a step, on the CPU
        self.accelerator = accelerator
        # The loop sets the rate of every step: a run that used this one would be thrown far off.
        self.optimizer = accelerator.prepare_optimizer(torch.optim.SGD([theta_of(self.actors)], lr=1e6))

    def steps(self, first_step: int = 0, total_steps: int = 2) -> Iterator[StepCompleted]:
        return train(
            actors=self.actors,
            method=self.method,
            batches=self.method.batches(self.actors, self.timesteps, first_step),
            reference=self.reference,
            timesteps=self.timesteps,
            tally=self.tally,
            optimizer=self.optimizer,
            accelerator=self.accelerator,
            learning_rate_at=lambda index: RATES[index],
            max_grad_norm=self.max_grad_norm,
            first_step=first_step,
            total_steps=total_steps,
        )

    @property
    def theta(self) -> list[float]:
        return theta_of(self.actors).tolist()


def test_two_steps_move_weights_and_reference_as_worked_by_hand() -> None:
    loop = Loop()
    assert isinstance(loop.reference, Halfway)
    steps = loop.steps()
    next(steps)
    assert loop.theta == pytest.approx([-0.1, -0.2])
    assert loop.reference.weights.tolist() == pytest.approx([0.45, 0.4])
    next(steps)
    assert loop.theta == pytest.approx([-0.39, -0.68])
    assert loop.reference.weights.tolist() == pytest.approx([0.03, -0.14])
    assert next(steps, None) is None
    assert loop.reference.steps == [1, 2]


def test_a_reference_without_a_penalty_leaves_the_loss_alone() -> None:
    loop = Loop(reference=Unpaid())
    next(loop.steps())
    assert loop.theta == pytest.approx([-0.2, -0.3])


def test_the_strategy_watches_every_example_once_a_step() -> None:
    loop = Loop()
    list(loop.steps())
    assert loop.timesteps.observed == [([0, 1, 1, 0], [2.0, 3.0, 4.0, 4.0])] * 2


def test_the_tally_is_told_every_example_and_its_weight() -> None:
    loop = Loop()
    list(loop.steps())
    noisy, clean = loop.tally.table("training", 2).bins
    assert (noisy.count, noisy.weight, noisy.signal_variance) == (4, 2.0, 0.25)  # 3 and 4, twice
    assert (clean.count, clean.weight, clean.signal_variance) == (4, 1.0, 1.0)  # 2 and 4, twice


def test_the_strategy_may_watch_the_signal_against_the_initial_model() -> None:
    class AgainstInitial(Linear):
        def loss(self, actors: Actors, batch: Micro) -> StepLoss:
            return replace(super().loss(actors, batch), signal_vs_initial=-batch.x.sum(dim=1))

    loop = Loop(method=AgainstInitial(), timesteps=Doubling(signal_against="initial"))
    list(loop.steps())
    assert loop.timesteps.observed == [([0, 1, 1, 0], [-2.0, -3.0, -4.0, -4.0])] * 2


def test_metrics_are_means_over_every_example_of_the_step() -> None:
    first, second = Loop().steps()
    assert (first.step, second.step, second.total_steps) == (1, 2, 2)
    assert first.metrics == pytest.approx(
        {
            "loss": 0.0,
            "size": (2 + 3 + 4 + 4) / 4,
            "ref_penalty": 1.0,
            "grad_norm": 5**0.5,
            "reference_norm": (0.45**2 + 0.4**2) ** 0.5,
            "learning_rate": 0.1,
        }
    )
    assert second.metrics["loss"] == pytest.approx((-0.2 - 0.3 - 0.8 - 0.8) / 4)
    assert second.metrics["learning_rate"] == 0.2


def test_a_gradient_over_the_threshold_is_clipped_to_it_and_reported_as_it_was() -> None:
    norm = 13**0.5
    loop = Loop(reference=Unpaid(), max_grad_norm=norm / 2)  # half the norm of (2, 3)
    first, second = loop.steps()
    assert loop.theta == pytest.approx([-0.1 - 0.2, -0.15 - 0.3], rel=1e-5)
    assert first.metrics["grad_norm"] == second.metrics["grad_norm"] == pytest.approx(norm)


def test_a_gradient_under_the_threshold_is_left_alone() -> None:
    loop = Loop(max_grad_norm=3.0)
    next(loop.steps())
    assert loop.theta == pytest.approx([-0.1, -0.2])


def test_a_resumed_loop_takes_the_steps_that_are_left_at_their_own_rates() -> None:
    loop = Loop(reference=Unpaid())
    events = list(loop.steps(first_step=2, total_steps=4))
    assert [event.step for event in events] == [3, 4]
    assert [event.metrics["learning_rate"] for event in events] == [0.3, 0.4]
    assert loop.theta == pytest.approx([-1.4, -2.1])
    assert loop.method.first_steps == [2]


def test_no_batch_is_drawn_beyond_the_last_step() -> None:
    loop = Loop()
    list(loop.steps(total_steps=3))
    assert loop.method.num_batches == 6
    assert list(loop.steps(first_step=3, total_steps=3)) == []
    assert loop.method.num_batches == 6


@pytest.mark.parametrize(
    ("x", "what"), [(float("nan"), "the loss is nan"), (3e38, "the gradient norm is inf")], ids=["loss", "gradient"]
)
def test_a_step_that_is_not_finite_touches_neither_weights_nor_reference(x: float, what: str) -> None:
    loop = Loop()
    next(loop.steps())
    theta, steps = loop.theta, 1
    loop.method.micros = (MICROS[0], Micro(torch.tensor([[x, 0.0]]), torch.tensor([1])))
    with pytest.raises(DivergenceError, match=f"step 2: {what}; the weights of step 1"):
        next(loop.steps(first_step=1))
    assert isinstance(loop.reference, Halfway)
    assert loop.theta == theta
    assert len(loop.reference.steps) == len(loop.timesteps.observed) == steps
