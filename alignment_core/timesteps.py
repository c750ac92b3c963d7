"""Which timesteps are drawn, and how much each counts: implementations of `protocols.TimestepStrategy`."""

import torch
from torch import Generator, Tensor

from alignment_core.protocols import PerExample, Timesteps


class UniformTimesteps:
    """t uniform on {0..N-1}, lambda(t) = 1, w(t) = 1: plain Diffusion-DPO."""

    def __init__(self, num_timesteps: int) -> None:
        self.num_timesteps = num_timesteps

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
