"""Steps are drawn without replacement, each with the inclusion probability that is said of it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignment_core.rollouts.step_choice import draw_items, inclusion_probabilities
from alignment_core.timesteps.weights import discounted_probabilities


def test_inclusion_probabilities_have_the_values_worked_by_hand() -> None:
    wanted = torch.tensor([0.6, 0.2, 0.1, 0.1])
    assert inclusion_probabilities(wanted, 1).tolist() == pytest.approx([0.6, 0.2, 0.1, 0.1])
    # 2 * 0.6 passes 1: the first is certain, and the others share the second place as 2:1:1
    assert inclusion_probabilities(wanted, 2).tolist() == pytest.approx([1.0, 0.5, 0.25, 0.25])
    assert inclusion_probabilities(wanted, 4).tolist() == [1.0] * 4


def test_weights_next_to_nothing_do_not_overflow() -> None:
    wanted = torch.tensor([1.0, 1.0, 2.225e-313, 2.225e-311], dtype=torch.float64)
    assert inclusion_probabilities(wanted, 3).sum().item() == pytest.approx(3)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.data())
def test_the_draws_differ_and_are_wanted(weights: list[float], data: st.DataObject) -> None:
    wanted = torch.tensor(weights, dtype=torch.float64)
    possible = int((wanted > 0).sum())
    num = data.draw(st.integers(0, possible))
    if num == 0:
        return
    pi = inclusion_probabilities(wanted, num)
    assert pi.sum().item() == pytest.approx(num)
    assert bool(((pi >= 0) & (pi <= 1)).all())
    drawn = draw_items(wanted, num, torch.Generator().manual_seed(data.draw(st.integers(0, 1000))))
    assert len(set(drawn)) == len(drawn) == num
    assert bool((wanted[drawn] > 0).all())


def test_each_step_is_drawn_as_often_as_its_inclusion_probability_says() -> None:
    wanted, num_draws = discounted_probabilities(0.8, 10), 4000
    counts, firsts = torch.zeros(10), torch.zeros(10)
    for seed in range(num_draws):
        drawn = draw_items(wanted, 4, torch.Generator().manual_seed(seed))
        counts[drawn] += 1
        firsts[drawn[0]] += 1
    pi = inclusion_probabilities(wanted, 4)
    assert torch.allclose((counts / num_draws).double(), pi, atol=0.03)
    assert torch.allclose((firsts / num_draws).double(), pi / 4, atol=0.03)  # the order is random


def test_the_same_generator_draws_the_same() -> None:
    wanted = discounted_probabilities(0.9, 20)
    one, other = (draw_items(wanted, 5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert one == other
