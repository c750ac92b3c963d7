"""How noise is mixed in, and what the network says of it: all that stands between time and tensors.

As k-diffusion has it: the model is adapted, so that methods, drift, penalties, rollouts and evaluation never see a schedule.

A path has N noise levels, and a `Timesteps` tensor is indices into them: 0 is the cleanest. What the network is *told* of a
level is its time, which is the index itself on a discrete schedule and 1000 sigma in flow matching.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from alignment_core.diffusion.formulas import PredictionType
from alignment_core.shapes import Latents, PerExample, Times, Timesteps

SIGMA_FLOOR = 1e-3  # below it a log-probability is a division by nearly nothing
Indices = Int[Tensor, " batch"]


@runtime_checkable
class Path(Protocol):
    """x_t = a(t) x_0 + b(t) eps, and the three forms that a prediction at it may have."""

    @property
    def prediction_type(self) -> PredictionType: ...

    @property
    def num_timesteps(self) -> int:
        """N."""
        ...

    @property
    def snr(self) -> Float[Tensor, " N"]:
        """(a/b)^2 of each level, float64, on the CPU."""
        ...

    def time(self, t: Timesteps) -> Times:
        """What the network is told of the levels `t`."""
        ...

    def noisy(self, x_0: Latents, eps: Latents, t: Timesteps) -> Latents:
        """x_t."""
        ...

    def target(self, x_0: Latents, eps: Latents, t: Timesteps) -> Latents:
        """What the network is asked to predict: eps, v, or the velocity eps - x_0."""
        ...

    def x_0(self, x_t: Latents, prediction: Latents, t: Timesteps) -> Latents:
        """The image that a prediction stands for."""
        ...

    def eps(self, x_t: Latents, prediction: Latents, t: Timesteps) -> Latents:
        """The noise that a prediction stands for."""
        ...

    def eps_scale(self, t: Timesteps) -> PerExample:
        """|eps - eps'|^2 over |yhat - yhat'|^2 of two predictions at one x_t.

        Distances between models are told in noise, so that a threshold means the same for every family.
        """
        ...

    def grid(self, num_steps: int, eta: float) -> "Grid":
        """The steps that sampling takes; raises `ValueError` where there are not so many."""
        ...


@runtime_checkable
class Grid(Protocol):
    """The T steps of a trajectory; index 0 is the noisiest."""

    @property
    def timesteps(self) -> Int[Tensor, " T"]:
        """The level of each step, for what counts levels: the nearest, where a step lies between two."""
        ...

    @property
    def sigma_t(self) -> Float[Tensor, " T"]:
        """Standard deviation of the noise of each step, float64, on the CPU."""
        ...

    def __len__(self) -> int: ...

    @property
    def trainable(self) -> list[int]:
        """Indices of the steps that have a density: sigma_t of at least the floor."""
        ...

    def level(self, index: Indices, like: Tensor) -> Timesteps:
        """The levels of the steps `index`."""
        ...

    def time(self, index: Indices, like: Tensor) -> Times:
        """What the network is told at the steps `index`."""
        ...

    def sigma(self, index: Indices, like: Tensor) -> PerExample:
        """sigma_t of the steps `index`, in the type of `like`."""
        ...

    def x_0(self, x_t: Latents, prediction: Latents, index: Indices) -> Latents:
        """The image that the prediction stands for."""
        ...

    def eps(self, x_t: Latents, prediction: Latents, index: Indices) -> Latents:
        """The noise that the prediction stands for."""
        ...

    def eps_scale(self, index: Indices, like: Tensor) -> PerExample:
        """As `Path.eps_scale`, at the steps `index`."""
        ...

    def x_0_of_eps(self, x_t: Latents, eps: Latents, index: Indices) -> Latents:
        """The image that is left of `x_t` without the noise `eps`."""
        ...

    def mean(self, x_t: Latents, prediction: Latents, index: Indices) -> Latents:
        """mu of the step, whose draw is mu + sigma_t z."""
        ...
