"""Which timesteps are drawn, and how much each counts: implementations of `protocols.TimestepStrategy`."""

from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from alignment_core.errors import CheckpointError
from alignment_core.protocols import SignalAgainst
from alignment_core.shapes import PerExample, PerStep, Timesteps
from alignment_core.timesteps.weights import (
    PerBin,
    PerTimestep,
    RunningVariance,
    bin_of,
    clip_mean1,
    mean1,
    probabilities_of_bins,
    sample_in_bins,
    sum1,
    variance_weights,
)


class UniformTimesteps:
    """t uniform on {0..N-1}, lambda(t) = 1, w(t) = 1: plain Diffusion-DPO."""

    def __init__(self, num_timesteps: int) -> None:
        self.num_timesteps = num_timesteps
        self.signal_against: SignalAgainst = "reference"

    @property
    def step_probabilities(self) -> None:
        return None

    def sample(self, num: int, generator: Generator) -> Timesteps:
        return torch.randint(0, self.num_timesteps, (num,), generator=generator)

    def reward_scale(self, timesteps: Timesteps) -> PerExample:
        return torch.ones_like(timesteps, dtype=torch.float32)

    def loss_weight(self, timesteps: Timesteps) -> PerExample:
        return torch.ones_like(timesteps, dtype=torch.float32)

    def observe(self, timesteps: Timesteps, signal: PerExample) -> None:
        """Nothing is learnt from the signal."""

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        assert not state, "uniform timesteps have no state"


KNOWN_SHARE = 0.99  # of the draws, in bins whose variance is known: a bin of the far tail may never see enough


@dataclass
class VarianceWeights:
    """w(t) from the running variance of the signal in each bin, once 99 % of the draws are in bins of `min_samples`.

    Until then, and for the rest after it, a bin weighs what it would if all variances were equal: 1, or 1/K with `sum1`.

    `power` is p: 1/2 for the standard deviation, 1 for the variance. `keeps_loss` adds the weighted loss to the plain one
    (l + lambda_2 w l), otherwise it takes its place (lambda_2 w l).
    """

    running: RunningVariance
    power: float
    direction: Literal["inverse", "direct"]
    normalization: Literal["mean1", "sum1"]
    clip: tuple[float, float] | None
    min_samples: int
    keeps_loss: bool
    lambda_2: float

    def weights(self, drawn: PerBin, counted: PerBin) -> PerBin:
        """What multiplies the loss in each bin, float64.

        `drawn` is the sampler's probability of each bin, `counted` the same times what else weighs there, an importance
        correction: their product with the weights is what must average 1.
        """
        w = self._normalised(drawn, counted)
        return 1 + self.lambda_2 * w if self.keeps_loss else self.lambda_2 * w

    def _normalised(self, drawn: PerBin, counted: PerBin) -> PerBin:
        num_drawn = int((drawn > 0).sum())
        equal = self._equal_weight(num_drawn)
        known = (drawn > 0) & (self.running.num_samples >= self.min_samples)
        if drawn[known].sum() < KNOWN_SHARE * drawn.sum():
            return torch.full_like(drawn, equal)
        w = torch.where(drawn > 0, equal, 0.0).double()  # a bin that is never drawn must not take a share
        w[known] = self._of_known(known, counted[known] / counted[known].sum()) * equal
        return w

    def _of_known(self, known: Bool[Tensor, " bins"], shares: Float[Tensor, " known"]) -> Float[Tensor, " known"]:
        """The weights of the bins whose variance is known, which average 1: under their shares, or with `sum1` one by one."""
        w = variance_weights(self.running.variances()[known], self.power, self.direction)
        if self.clip is not None:
            w = clip_mean1(w, shares, *self.clip)
        match self.normalization:
            case "mean1":
                return mean1(w, shares)
            case "sum1":
                return sum1(w) * len(w)
            case _:
                assert_never(self.normalization)

    def _equal_weight(self, num_drawn: int) -> float:
        match self.normalization:
            case "mean1":
                return 1.0
            case "sum1":
                return 1 / num_drawn
            case _:
                assert_never(self.normalization)


class TimestepAware:
    """A sampler over noise bins, lambda(t) inside the sigmoid, and w(t) on the loss.

    `probabilities` of the K bins, or of every timestep, noisiest first, float64; None draws t uniformly, with the very draws of
    `UniformTimesteps`. `density` is the share that each t has in what is trained; for an online method it follows from
    `step_probabilities`, which say which of its sampler's steps are wanted. `scale` is lambda(t) by t. `fixed_weights` by t
    multiply the loss; `learnt_weights` follow the signal.
    """

    def __init__(
        self,
        *,
        num_timesteps: int,
        num_bins: int,
        probabilities: PerBin | None,
        density: PerTimestep,
        step_probabilities: PerStep | None,
        scale: PerTimestep,
        fixed_weights: PerTimestep,
        learnt_weights: VarianceWeights | None,
        signal_against: SignalAgainst,
    ) -> None:
        if num_bins > num_timesteps:
            raise ValueError(f"{num_bins} bins over {num_timesteps} timesteps: some would be empty")
        self.num_timesteps = num_timesteps
        self.num_bins = num_bins
        self.signal_against: SignalAgainst = signal_against
        self.step_probabilities = step_probabilities
        self._sampled = probabilities
        self._scale = scale.float()
        self._fixed = fixed_weights.double()
        self._drawn = probabilities_of_bins(density, num_bins)
        self._counted = probabilities_of_bins(density * self._fixed, num_bins)
        self._learnt = learnt_weights
        self._weights = self._current_weights()

    def sample(self, num: int, generator: Generator) -> Timesteps:
        if self._sampled is None:
            return torch.randint(0, self.num_timesteps, (num,), generator=generator)
        return sample_in_bins(self._sampled, self.num_timesteps, num, generator)

    def reward_scale(self, timesteps: Timesteps) -> PerExample:
        return self._scale.to(timesteps.device)[timesteps]

    def loss_weight(self, timesteps: Timesteps) -> PerExample:
        return self._weights.to(timesteps.device)[timesteps]

    def observe(self, timesteps: Timesteps, signal: PerExample) -> None:
        """Update the variance of each bin, and the weights with it."""
        if self._learnt is None:
            return
        bins = bin_of(timesteps.cpu(), self.num_bins, self.num_timesteps)
        self._learnt.running.add(bins, signal.cpu())
        self._weights = self._current_weights()

    def state_dict(self) -> dict[str, Tensor]:
        if self._learnt is None:
            return {}
        running = self._learnt.running
        return {
            "weight": running.weight,
            "first": running.first,
            "second": running.second,
            "num_samples": running.num_samples,
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if self._learnt is None:
            assert not state, "fixed weights have no state"
            return
        running = self._learnt.running
        if missing := self.state_dict().keys() - state.keys():
            raise CheckpointError("checkpoint_altered", f"timestep state: {sorted(missing)[0]!r} is missing")
        running.weight, running.first, running.second = state["weight"], state["first"], state["second"]
        running.num_samples = state["num_samples"]
        self._weights = self._current_weights()

    def _current_weights(self) -> PerTimestep:
        if self._learnt is None:
            return self._fixed.float()
        bins = bin_of(torch.arange(self.num_timesteps), self.num_bins, self.num_timesteps)
        return (self._fixed * self._learnt.weights(self._drawn, self._counted)[bins]).float()
