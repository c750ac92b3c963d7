"""What a turn of an online method is estimated to draw is what goes through the denoiser."""

import pytest
from torch import Tensor, nn

from alignment_core.spec.online import OnlineMethodSpec
from tests.alignment_core.load.test_combinations import Folders, folders, load, spec_of

__all__ = ["folders"]


@pytest.mark.parametrize("name", ["d3po", "ddpo"])
def test_a_turn_draws_by_as_many_forwards_as_are_counted(name: str, folders: Folders) -> None:
    spec = spec_of(folders, name, "frozen", "uniform")
    assert isinstance(spec.method, OnlineMethodSpec)
    run, asked = load(spec, folders), list[int]()

    def count(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        asked.append(len(given[0]))

    run.actors.denoiser.register_forward_pre_hook(count)
    next(run.method.batches(run.actors, run.timesteps, 0))
    trajectories = spec.method.trajectories_of_a_turn(spec.examples_per_step)
    assert sum(asked) == 2 * trajectories * spec.method.forwards_of_a_trajectory  # with guidance, and without
