"""The by-timestep table adds up what the examples said."""

import pytest
import torch

from alignment_core.timesteps.table import Examples, TimestepTally


def examples(t: list[int], margin: list[float], **more: list[float]) -> Examples:
    metrics = {"margin": torch.tensor(margin), **{name: torch.tensor(values) for name, values in more.items()}}
    return Examples(torch.tensor(t), metrics, torch.tensor(margin) / 100, torch.full((len(t),), 2.0))


def test_a_row_holds_the_means_of_its_bin() -> None:
    tally = TimestepTally(1000)
    tally.add(examples([999, 5], [1.0, -4.0], implicit_accuracy=[1.0, 0.0]))
    tally.add(examples([950], [3.0], implicit_accuracy=[0.5]))
    table = tally.table("training", 7)
    noisiest, cleanest = table.bins[0], table.bins[-1]
    assert (table.step, table.since_step, len(table.bins)) == (7, 0, 10)
    assert (noisiest.first_timestep, noisiest.last_timestep, noisiest.count) == (900, 999, 2)
    assert (noisiest.margin, noisiest.implicit_accuracy, noisiest.weight) == (2.0, 0.75, 2.0)
    assert noisiest.signal_variance == pytest.approx(1e-4)
    assert noisiest.reward_magnitude is None  # not told
    assert (cleanest.first_timestep, cleanest.count, cleanest.margin) == (0, 1, -4.0)


def test_an_empty_bin_has_no_means() -> None:
    tally = TimestepTally(1000)
    tally.add(examples([999], [1.0]))
    assert tally.table("training", 1).bins[5].model_dump(exclude={"first_timestep", "last_timestep"}) == {
        "count": 0,
        "reward_magnitude": None,
        "implicit_accuracy": None,
        "margin": None,
        "signal_variance": None,
        "weight": None,
    }


def test_the_next_table_begins_anew() -> None:
    tally = TimestepTally(1000, since_step=3)
    tally.add(examples([999], [1.0]))
    assert tally.table("training", 5).since_step == 3
    tally.add(examples([0], [1.0]))
    second = tally.table("training", 9)
    assert second.since_step == 5
    assert [row.count for row in second.bins] == [0] * 9 + [1]
