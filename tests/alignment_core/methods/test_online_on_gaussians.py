"""The online methods on data whose best denoiser is known: x_0 ~ N(0, 1) in every dimension, so that nothing must be trained first.

The policy is the exact denoiser plus a learnt constant, and the reward the mean of the image: what is learnt can be read off.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from alignment_core.actors.actors import Actors
from alignment_core.diffusion.discrete_vp import DDIMGrid, ddim_grid
from alignment_core.diffusion.formulas import scaled_linear_abar
from alignment_core.methods.d3po import D3PO
from alignment_core.methods.ddpo import DDPO
from alignment_core.methods.dpok import DPOK
from alignment_core.methods.tailorpo import TailorPO
from alignment_core.rollouts.rollout import Draws, walk
from alignment_core.rollouts.setup import RolloutSetup
from alignment_core.timesteps.strategies import UniformTimesteps

SHAPE = (1, 4, 4)
ABAR = scaled_linear_abar()
GRID = ddim_grid("epsilon", ABAR, range(951, 0, -50), eta=1.0, final_abar=0.99915)


class GaussianFamily:
    device = torch.device("cpu")


class GaussianActors(Actors):
    """Exact eps = sqrt(1 - abar_t) x_t as reference; the policy adds a learnt shift of eps."""

    def __init__(self) -> None:
        self.family: Any = GaussianFamily()
        self.shift = nn.Parameter(torch.zeros(SHAPE))

    @property
    def reference_moves(self) -> bool:
        return False

    def predict_reference(self, x_t: Tensor, timesteps: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
        return (1 - ABAR[timesteps]).sqrt().float().reshape(-1, 1, 1, 1) * x_t

    def predict_policy(self, x_t: Tensor, timesteps: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
        return self.predict_reference(x_t, timesteps, conditioning) + self.shift

    def predict_drawing(self, x_t: Tensor, timesteps: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
        return self.predict_policy(x_t, timesteps, conditioning)

    def predict_with(self, weights: None, x_t: Tensor, timesteps: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
        return self.predict_policy(x_t, timesteps, conditioning)


class MeanReward:
    """Mean of the image, bent by `shape`; `differentiable` as far as that is."""

    differentiable = True

    def __init__(self, shape: Callable[[Tensor], Tensor]) -> None:
        self._shape = shape

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return self._shape(images.mean(dim=(1, 2, 3)))


def setup(shape: Callable[[Tensor], Tensor], grid: DDIMGrid = GRID) -> RolloutSetup:
    return RolloutSetup(
        prompts=["x"],
        grid=grid,
        guidance_scale=1.0,
        latent_shape=SHAPE,
        encode=lambda prompts: {"prompt_embeds": torch.zeros(len(prompts), 1, 1)},
        encode_empty=lambda: {"prompt_embeds": torch.zeros(1, 1, 1)},
        decode=lambda latents: latents,
        rewards=[MeanReward(shape)],
        seed=0,
    )


def methods(of: RolloutSetup) -> dict[str, Any]:
    drawn: dict[str, Any] = {"num_prompts": 64, "accumulation": 1}
    return {
        "tailorpo": TailorPO(of, 0.1, "sum", 5, None, None, batch_size=64, accumulation=1),
        "d3po": D3PO(of, 0.1, "sum", 0.1, num_trained_steps=20, batch_size=256, **drawn),
        "ddpo": DDPO(of, 0.1, 5.0, "batch", num_copies=1, num_trained_steps=20, batch_size=256, **drawn),
        "dpok": DPOK(
            of, 0.1, 10.0, 0.0, "batch", num_copies=1, updates=5, buffer_iterations=1, batch_size=256, **drawn
        ),
    }


def trained(name: str, shape: Callable[[Tensor], Tensor], num_steps: int) -> GaussianActors:
    actors = GaussianActors()
    method, optimizer = methods(setup(shape))[name], torch.optim.Adam([actors.shift], lr=3e-3)
    batches = method.batches(actors, UniformTimesteps(1000), 0)
    for _ in range(num_steps):
        method.loss(actors, next(batches)).per_example.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return actors


def rewards_of(actors: GaussianActors) -> Tensor:
    """The mean of each of 512 images from noise that training never saw."""
    rows, draws = list(range(512)), Draws(seed=1, iteration=0, shape=SHAPE)
    with torch.no_grad():
        drawn = walk(
            GRID,
            lambda x, t: actors.predict_policy(x, t, {}),
            draws.start(rows),
            lambda index: draws.noise(rows, index),
            first=0,
            last=20,
        )
    return drawn.states[-1].mean(dim=(1, 2, 3))


@pytest.mark.parametrize("name", ["tailorpo", "d3po", "ddpo", "dpok"])
@pytest.mark.parametrize("sign", [1, -1], ids=["more", "less"])
def test_the_reward_moves_the_wanted_way_by_more_than_ten_standard_errors(name: str, sign: int) -> None:
    gain = sign * (rewards_of(trained(name, lambda r: sign * r, 80)) - rewards_of(GaussianActors()))
    # the same noise drew both, so the difference has hardly any spread of its own: use that of the images
    standard_error = rewards_of(GaussianActors()).std() / len(gain) ** 0.5
    assert gain.mean() > 10 * standard_error


def test_a_monotone_change_of_the_reward_changes_no_bit_of_tailorpo() -> None:
    plain, bent = trained("tailorpo", lambda r: r, 20), trained("tailorpo", lambda r: (3 * r).exp() - 7, 20)
    assert torch.equal(plain.shift, bent.shift)


def test_the_next_state_is_the_winner() -> None:
    actors = GaussianActors()
    of = setup(lambda r: r)
    method = methods(of)["tailorpo"]
    batches = method.batches(actors, UniformTimesteps(1000), 0)
    first = next(batches)
    assert torch.equal(method.state_at(1)["x"], first.x_w)
    second = next(batches)
    rows, draws = list(range(64)), Draws(0, 0, SHAPE)
    between = walk(
        GRID,
        lambda x, t: actors.predict_policy(x, t, {}),
        first.x_w,
        lambda index: draws.noise(rows, index),
        first=1,
        last=4,
    )
    assert torch.equal(second.x_t, between.states[-1])


def test_scores_that_are_no_numbers_decide_nothing_and_weigh_nothing() -> None:
    actors = GaussianActors()
    method = methods(setup(lambda r: torch.where(r > 0, r, torch.nan)))["tailorpo"]
    batch = next(method.batches(actors, UniformTimesteps(1000), 0))
    undecided = batch.metrics["tie_rate"] == 1
    assert 0 < undecided.sum() < 64
    assert (batch.weight[undecided] == 0).all()
    assert batch.weight.mean().item() == pytest.approx(1)
