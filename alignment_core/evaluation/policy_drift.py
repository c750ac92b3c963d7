"""How far the policy has moved from the base model in what it predicts.

    eps_dist = mean |eps_policy - eps_base|^2   at noised images that the policy drew, without guidance

This is `reference/drift_on_winners.py`'s distance on the images that matter at the end: those that users will get.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignment_core.diffusion.formulas import regression_error
from alignment_core.diffusion.path import Path
from alignment_core.reports import Drift, DriftBin
from alignment_core.seeds import generator_of
from alignment_core.shapes import Latents, PerExample, Times, Timesteps
from alignment_core.timesteps.weights import bounds_of

NUM_BINS = 10
DRAWS_PER_BIN = 16

Predict = Callable[[Latents, Times, dict[str, Tensor]], Latents]


@dataclass(frozen=True)
class Conditioned:
    """A model with its own conditioning of the prompts: row i of each tensor belongs to latent i."""

    predict: Predict
    conditioning: Mapping[str, Tensor]

    def at(self, x_t: Latents, times: Times, rows: Tensor) -> Latents:
        return self.predict(x_t, times, {name: value[rows] for name, value in self.conditioning.items()})


@torch.no_grad()
def eps_distance(
    base: Conditioned,
    policy: Conditioned,
    *,
    latents: Latents,
    path: Path,
    seed: int,
    batch_size: int,
) -> tuple[float, list[DriftBin]]:
    """The distance and its ten bins over t, at the draws of `noised_batches`."""
    found: list[PerExample] = []
    for noised in noised_batches(latents, path, seed, batch_size):
        moved = regression_error(_at(policy, noised), _at(base, noised))
        found.append((path.eps_scale(noised.t) * moved).double().cpu())
    return by_bins(torch.cat(found), path)


@dataclass(frozen=True)
class Noised:
    """Noised latents of a batch, and whose they are: `rows` of the latents."""

    x_t: Latents
    t: Timesteps
    times: Times
    rows: Tensor


def _at(model: Conditioned, noised: Noised) -> Latents:
    return model.at(noised.x_t, noised.times, noised.rows)


def noised_batches(latents: Latents, path: Path, seed: int, batch_size: int) -> Iterator[Noised]:
    """`DRAWS_PER_BIN` noisy `latents` a bin; the noise follows from `seed`. The draws go through the latents in turn."""
    num = path.num_timesteps
    num_bins = min(NUM_BINS, num)
    numbers = list(range(num_bins * DRAWS_PER_BIN))
    for start in range(0, len(numbers), batch_size):
        part = numbers[start : start + batch_size]
        rows = torch.tensor([number // num_bins % len(latents) for number in part], device=latents.device)
        t, eps = _draws(part, num_bins, num, latents.shape[1:], seed)
        t, eps = t.to(latents.device), eps.to(latents.device)
        yield Noised(path.noisy(latents[rows], eps, t), t, path.time(t), rows)


@torch.no_grad()
def predictions_at(model: Conditioned, latents: Latents, path: Path, *, seed: int, batch_size: int) -> Latents:
    """What a model predicts at every draw, on the CPU, for a comparison with another that is not in memory yet."""
    return torch.cat([_at(model, noised).cpu() for noised in noised_batches(latents, path, seed, batch_size)])


@torch.no_grad()
def distance_between(first: Latents, second: Latents, latents: Latents, path: Path, *, seed: int) -> Drift:
    """What `eps_distance` is, from what two models predicted at the draws of the same `latents`."""
    t = torch.cat([noised.t for noised in noised_batches(latents, path, seed, len(first))])
    moved = path.eps_scale(t.to(path.snr.device)).cpu() * regression_error(first.float(), second.float())
    distance, bins = by_bins(moved.double(), path)
    return Drift(eps_dist=distance, by_timestep=bins, num_draws=len(first), relative_weight_change=None)


def by_bins(moved: PerExample, path: Path) -> tuple[float, list[DriftBin]]:
    """The mean over all draws, and over those of each bin."""
    num, num_bins = path.num_timesteps, min(NUM_BINS, path.num_timesteps)
    by_bin = moved.view(DRAWS_PER_BIN, num_bins).mean(dim=0)
    bounds = [bounds_of(number, num_bins, num) for number in range(num_bins)]
    bins = [
        DriftBin(first_timestep=first, last_timestep=last, eps_dist=value)
        for (first, last), value in zip(bounds, by_bin.tolist(), strict=True)
    ]
    return float(by_bin.mean()), bins


def _draws(
    numbers: Sequence[int], num_bins: int, num_timesteps: int, shape: torch.Size, seed: int
) -> tuple[Timesteps, Latents]:
    """Draw `number` falls into bin `number % num_bins`, at a place and with noise of its own."""
    generators = [generator_of(seed, "evaluation", "drift", number) for number in numbers]
    places = [float(torch.rand((), generator=generator, dtype=torch.float64)) for generator in generators]
    bounds = [bounds_of(number % num_bins, num_bins, num_timesteps) for number in numbers]
    t = [first + int(place * (last + 1 - first)) for place, (first, last) in zip(places, bounds, strict=True)]
    return torch.tensor(t), torch.stack([torch.randn(shape, generator=generator) for generator in generators])
