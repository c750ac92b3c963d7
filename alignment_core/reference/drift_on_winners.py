"""How far the reference has drifted from the initial model, measured on winners at noise and timesteps that never change.

    mse_gap   D = mean(r_w - i_w)                     signed: a reference that models winners better gives D < 0
    eps_dist  D = mean |eps_ref - eps_init|^2         never negative

Errors are told in noise, whatever the network predicts, so that a threshold means the same for every family.

Kang et al., "Rethinking Direct Preference Optimization in Diffusion Models", arXiv 2505.18736, without DPO's constants. The
samples are ours: t stratified over ten bins, everything drawn from the run's seed, so that successive values compare.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol, assert_never, runtime_checkable

import torch
from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.actors.reference_weights import Weights
from alignment_core.diffusion.formulas import regression_error
from alignment_core.seeds import generator_of, permutation_of
from alignment_core.shapes import Latents, PerExample, Times

DriftKind = Literal["mse_gap", "eps_dist"]
STRATA = 10


@runtime_checkable
class DriftMeasure(Protocol):
    """A distance from the initial model; the same number in every process."""

    @property
    def kind(self) -> DriftKind: ...

    def of(self, weights: Weights | None) -> float:
        """That of a reference with these weights, or of the policy."""
        ...

    def unit(self) -> float:
        """What a relative budget is relative to: the initial model's mean error, or where there is no target its mean square."""
        ...


@runtime_checkable
class Winners(Protocol):
    """Images that were preferred, by index; on the CPU."""

    @property
    def num_winners(self) -> int: ...

    def winners(
        self, indices: Sequence[int], draws: Sequence[torch.Generator]
    ) -> tuple[Latents, Latents, dict[str, Tensor]]:
        """Mean and standard deviation of the VAE's posteriors, and the prompts' conditioning; one generator an image."""
        ...


@dataclass(frozen=True)
class Probe:
    """Noisy winners with what they are the noisy form of."""

    x_t: Latents
    times: Times
    conditioning: dict[str, Tensor]
    target: Latents
    eps_scale: PerExample
    counts: bool = True  # False: another process's too, asked so that all make as many forwards


@dataclass(frozen=True)
class DriftOnWinners:
    """`DriftMeasure` on this process's share of the winners; `add_up` sums a tensor over the processes."""

    kind: DriftKind
    actors: Actors
    probes: Sequence[Probe]
    add_up: Callable[[Tensor], Tensor]

    def of(self, weights: Weights | None) -> float:
        return self._mean([self._one(probe, initial, weights) for probe, initial in self._with_initial])

    def unit(self) -> float:
        return self._mean([_error(probe, initial, probe.target) for probe, initial in self._with_initial])

    def _one(self, probe: Probe, initial: Latents, weights: Weights | None) -> PerExample:
        with torch.no_grad():
            yhat = self.actors.predict_with(weights, probe.x_t, probe.times, probe.conditioning)
        match self.kind:
            case "eps_dist":
                return _error(probe, yhat, initial)
            case "mse_gap":
                return _error(probe, yhat, probe.target) - _error(probe, initial, probe.target)
            case _:
                assert_never(self.kind)

    def _mean(self, values: list[Tensor]) -> float:
        counted = [value for value, probe in zip(values, self.probes, strict=True) if probe.counts]
        here = torch.cat(counted).double().cpu() if counted else torch.zeros(0, dtype=torch.float64)
        total = self.add_up(torch.stack([here.sum(), torch.tensor(float(len(here)), dtype=torch.float64)]))
        return (total[0] / total[1]).item()

    @cached_property
    def _with_initial(self) -> list[tuple[Probe, Latents]]:
        """The initial model never changes, and is asked once."""
        predict = self.actors.predict_initial
        return [(probe, predict(probe.x_t, probe.times, probe.conditioning)) for probe in self.probes]


def _error(probe: Probe, yhat: Latents, other: Latents) -> PerExample:
    return probe.eps_scale * regression_error(yhat, other)


def winner_probes(
    winners: Winners, actors: Actors, *, num: int, batch_size: int, seed: int, rank: int, num_processes: int
) -> list[Probe]:
    """This process's share of `num` noisy winners; they come again, at other noise, where there are fewer."""
    order = permutation_of(winners.num_winners, seed, "guard")
    shares = [list(range(num))[of::num_processes] for of in (rank, 0)]  # the first process has the most
    parts, most = ([mine[start : start + batch_size] for start in range(0, len(mine), batch_size)] for mine in shares)
    return [
        replace(
            _probe(winners, actors, part, [order[number % len(order)] for number in part], seed),
            counts=place < len(parts),
        )
        for place, part in enumerate([*parts, *most[len(parts) :]])
    ]


def _probe(winners: Winners, actors: Actors, numbers: list[int], indices: list[int], seed: int) -> Probe:
    family = actors.family
    draws = [generator_of(seed, "guard", number) for number in numbers]
    mean, std, conditioning = winners.winners(indices, draws)
    noise = torch.stack([torch.randn((2, *mean.shape[1:]), generator=draw) for draw in draws])
    places = torch.stack([torch.rand((), generator=draw, dtype=torch.float64) for draw in draws])
    stratum = torch.tensor(numbers) % STRATA
    num, path = family.path.num_timesteps, family.path
    t = ((stratum + places) * num / STRATA).long().clamp(max=num - 1).to(family.device)
    x_0 = (mean + std * noise[:, 1]).to(family.device)
    eps = noise[:, 0].to(family.device)
    return Probe(
        x_t=path.noisy(x_0, eps, t),
        times=path.time(t),
        conditioning={name: value.to(family.device) for name, value in conditioning.items()},
        target=path.target(x_0, eps, t),
        eps_scale=path.eps_scale(t),
    )
