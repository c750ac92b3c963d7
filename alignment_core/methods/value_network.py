"""DPOK's optional value network: what reward a trajectory is headed for, told from one of its states.

V(x_t, prompt, t) is regressed on the reward of the final image, so that A = R - V is what the steps from x_t on added. Fan et al.
(arXiv 2305.16381) fit it once an iteration, with five minibatches of 256 transitions in one Adam step at 1e-4. How the network is
built is ours.

State lives in tensors that go in and come out, none in the network: a checkpoint keeps them beside the trajectories.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignment_core.seeds import seed_of
from alignment_core.shapes import Latents, PerExample, Timesteps

PREFIX = "value."
GRID = 4  # a latent is pooled to 4 x 4 before the layers that mix
FREQUENCIES = 8


@dataclass(frozen=True)
class States:
    """States of trajectories as the network reads them. `conditioning` is the denoiser's: `[B, ..., width]` tensors."""

    x_t: Latents
    timesteps: Timesteps
    conditioning: dict[str, Tensor]


@dataclass(frozen=True)
class ValueNetwork:
    """How the network is built and fitted; `num_timesteps` are the model's."""

    width: int
    learning_rate: float
    batch_size: int
    num_batches: int
    num_timesteps: int
    seed: int

    def begin(self, states: States) -> dict[str, Tensor]:
        """The state before the first fit, on the CPU: weights drawn from the run's seed, and no Adam moments."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed, "value"))
            network = _Network(states.x_t.shape[1], _text_width(states.conditioning), self.width)
        return {f"{PREFIX}{name}": value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def values(self, state: Mapping[str, Tensor], states: States) -> PerExample:
        """V of each state, float32 on its device."""
        return self._network(state, states)(*self._inputs(states))

    def fit(self, state: Mapping[str, Tensor], batches: Sequence[tuple[States, Tensor]]) -> dict[str, Tensor]:
        """The state after one Adam step on the mean squared error over `batches` of states and their final rewards."""
        network = self._network(state, batches[0][0])
        optimizer = torch.optim.Adam(network.parameters(), lr=self.learning_rate)
        _restore_moments(optimizer, network, state)
        num = sum(len(reward) for _, reward in batches)
        for states, reward in batches:
            error = F.mse_loss(network(*self._inputs(states)), reward.float(), reduction="sum")
            (error / num).backward()
        optimizer.step()
        weights = {f"{PREFIX}{name}": value.detach().cpu().clone() for name, value in network.state_dict().items()}
        return {**weights, **_moments(optimizer, network)}

    def _network(self, state: Mapping[str, Tensor], states: States) -> "_Network":
        network = _Network(states.x_t.shape[1], _text_width(states.conditioning), self.width)
        network.load_state_dict({name: state[f"{PREFIX}{name}"] for name in network.state_dict()})
        return network.to(states.x_t.device)

    def _inputs(self, states: States) -> tuple[Tensor, Tensor, Tensor]:
        texts = [
            value.float().flatten(1, -2).mean(dim=1) if value.dim() > 2 else value.float() for value in _texts(states)
        ]
        at = states.timesteps.to(states.x_t.device).float() / self.num_timesteps
        angles = at[:, None] * math.pi * 2 ** torch.arange(FREQUENCIES, device=at.device)
        return states.x_t.float(), torch.cat(texts, dim=1), torch.cat([angles.sin(), angles.cos()], dim=1)


class _Network(nn.Module):
    """Two convolutions over the latent, pooled; then the text and the time join, and two layers mix."""

    def __init__(self, channels: int, text_width: int, width: int) -> None:
        super().__init__()
        self.latent = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1, stride=2),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(GRID),
            nn.Flatten(),
            nn.Linear(width * GRID * GRID, width),
        )
        self.text = nn.Linear(text_width, width)
        self.time = nn.Linear(2 * FREQUENCIES, width)
        self.head = nn.Sequential(nn.SiLU(), nn.Linear(3 * width, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, x_t: Tensor, text: Tensor, time: Tensor) -> Tensor:
        return self.head(torch.cat([self.latent(x_t), self.text(text), self.time(time)], dim=1)).squeeze(1)


def _texts(states: States) -> list[Tensor]:
    return [value for _, value in sorted(states.conditioning.items()) if value.is_floating_point() and value.dim() > 1]


def _text_width(conditioning: Mapping[str, Tensor]) -> int:
    return sum(value.shape[-1] for value in conditioning.values() if value.is_floating_point() and value.dim() > 1)


def _moments(optimizer: torch.optim.Adam, network: nn.Module) -> dict[str, Tensor]:
    kept = {}
    for name, parameter in network.named_parameters():
        for moment, value in optimizer.state[parameter].items():
            kept[f"{PREFIX}adam.{moment}.{name}"] = value.detach().cpu().clone()
    return kept


def _restore_moments(optimizer: torch.optim.Adam, network: nn.Module, state: Mapping[str, Tensor]) -> None:
    for name, parameter in network.named_parameters():
        for moment in ("step", "exp_avg", "exp_avg_sq"):
            key = f"{PREFIX}adam.{moment}.{name}"
            if key in state:  # not before the first fit
                device = "cpu" if moment == "step" else parameter.device
                optimizer.state[parameter][moment] = state[key].clone().to(device)
