"""The interfaces between a run's parts. A class of ours is one of these or final; none inherits code.

Images are float32 `[B, 3, H, W]` in [0, 1]; latents are `[B, C, h, w]`, already multiplied by the VAE's scaling factor.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, runtime_checkable

from torch import Generator, Tensor

from alignment_core.diffusion.formulas import regression_error
from alignment_core.shapes import Images, Latents, PerExample, PerStep, Times, Timesteps

if TYPE_CHECKING:
    from alignment_core.actors.actors import Actors

SignalAgainst = Literal["reference", "initial"]

B = TypeVar("B")


@runtime_checkable
class RewardModel(Protocol):
    """Scores images against their prompts; higher is better.

    `__call__(images [B,3,H,W] in [0,1], prompts) -> float32 [B]`. It never changes its own parameters and runs without
    gradients unless the images ask for them and `differentiable` is true.
    """

    @property
    def differentiable(self) -> bool: ...

    def __call__(self, images: Images, prompts: Sequence[str]) -> PerExample: ...


@runtime_checkable
class Sampler(Protocol):
    """Draws one image for each (prompt, seed); the same arguments give the same images, whatever the batch size."""

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> Images: ...


@dataclass(frozen=True)
class Predictions:
    """What the three networks said to a batch's inputs, so that a penalty needs no second forward of the policy.

    A batch of B examples with n images each has n B rows, image by image: the first B rows are each example's first image.
    `initial` is `reference` itself while that does not move. `logit_scale` is what turns an unscaled margin into a logit
    (Diffusion-DPO: beta/2); `eps_scale` what turns a squared distance between predictions into one between noises. Only `policy` has a gradient. Predictions of online methods are guided, by `guidance_scale` away
    from the conditioning `empty`.
    """

    x_t: Latents
    times: Times
    conditioning: dict[str, Tensor]
    policy: Latents
    reference: Latents
    initial: Latents
    logit_scale: float
    eps_scale: PerExample
    empty: dict[str, Tensor] = field(default_factory=dict)
    guidance_scale: float = 1.0

    def distance(self, one: Latents, other: Latents) -> PerExample:
        """Squared distance of two of the predictions, row by row, in noise: |eps - eps'|^2, mean over the latent."""
        return self.eps_scale * regression_error(one, other)


@dataclass(frozen=True)
class StepLoss:
    """What each example of a batch loses, never reduced, and what the plug-ins may watch.

    `signal` is the unscaled margin of offline methods or the advantage of online ones, without gradient;
    `signal_vs_initial` is the same against the initial model where the reference moves, and None where it does not. `metrics`
    are per-example float32 values without gradient, NaN where one says nothing of an example; the trainer averages them over
    the examples of the optimiser step.
    """

    per_example: PerExample
    timesteps: Timesteps
    signal: PerExample
    metrics: dict[str, PerExample]
    signal_vs_initial: PerExample | None = None
    predictions: Predictions | None = None

    def signal_against(self, model: SignalAgainst) -> PerExample:
        """The signal against the reference or the initial model; the same thing while the reference does not move."""
        return self.signal if model == "reference" or self.signal_vs_initial is None else self.signal_vs_initial


@runtime_checkable
class TimestepStrategy(Protocol):
    """Which timesteps are drawn, and how much each counts.

    What it has observed enters by `loss_weight` alone: a step's timesteps are drawn, and scaled, while the step before it is computed.
    """

    @property
    def signal_against(self) -> SignalAgainst:
        """The model that the signal to `observe` is measured against."""
        ...

    def sample(self, num: int, generator: Generator) -> Timesteps:
        """`num` training timesteps, on the CPU."""
        ...

    @property
    def step_probabilities(self) -> PerStep | None:
        """How much each step of an online method's sampler is wanted, noisiest first; None leaves the choice to the method."""
        ...

    def reward_scale(self, timesteps: Timesteps) -> PerExample:
        """lambda(t), multiplies the logit inside the sigmoid."""
        ...

    def loss_weight(self, timesteps: Timesteps) -> PerExample:
        """w(t), multiplies the loss of each example."""
        ...

    def observe(self, timesteps: Timesteps, signal: PerExample) -> None:
        """Called once an optimiser step with every example of it."""
        ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


@runtime_checkable
class Method(Protocol[B]):
    """A method is two verbs: where its batches come from, and what each example of a batch loses."""

    def batches(self, actors: "Actors", timesteps: TimestepStrategy, first_step: int) -> Iterator[B]:
        """Micro-batches from optimiser step `first_step` (counted from 0) on, `accumulation` of them a step.

        The draws depend on the run's seed and the step alone, so a resumed run sees what an undisturbed one sees.
        """
        ...

    def loss(self, actors: "Actors", batch: B) -> StepLoss: ...


@runtime_checkable
class Remembering(Protocol[B]):
    """A method whose loss may take what a network said before, in place of asking it."""

    def asking_anew(self, batch: B) -> tuple["Method[B]", B]:
        """The method and the batch of which every network is asked again: for other weights, or another precision."""
        ...


@runtime_checkable
class ReferenceUpdate(Protocol):
    """How the reference model moves, if it does, and what the policy pays for moving away."""

    def penalty(self, actors: "Actors", loss: StepLoss) -> PerExample | None:
        """A term to add to each example's loss, or None."""
        ...

    def after_step(self, actors: "Actors", step: int) -> dict[str, float]:
        """Move the reference after optimiser step `step` (counted from 1); metrics that say what was done."""
        ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...
