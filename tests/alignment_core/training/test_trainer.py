"""The learning-rate schedule and the seeds: functions of the step and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment_core.seeds import generator_of, permutation_of, seed_of
from alignment_core.training.loop import learning_rate_schedule


def test_warm_up_rises_linearly_to_the_base_rate() -> None:
    rate = learning_rate_schedule("constant", 1.0, warmup_steps=4, total_steps=10)
    assert [rate(index) for index in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(("kind", "middle"), [("constant", 1.0), ("cosine", 0.5), ("linear", 0.5)])
def test_schedules_start_at_the_base_rate_and_pass_the_middle_where_they_should(kind: str, middle: float) -> None:
    rate = learning_rate_schedule(kind, 1.0, warmup_steps=0, total_steps=10)
    assert rate(0) == 1.0
    assert rate(5) == pytest.approx(middle)
    assert rate(9) > 0


@given(st.integers(0, 2**62), st.integers(0, 10**6))
def test_a_seed_names_its_draw(seed: int, step: int) -> None:
    assert seed_of(seed, "dpo", step) == seed_of(seed, "dpo", step)
    assert seed_of(seed, "dpo", step) != seed_of(seed, "dpo", step + 1)
    assert 0 <= seed_of(seed, "dpo", step) < 2**63
    assert generator_of(seed, "dpo", step).initial_seed() == seed_of(seed, "dpo", step)


@given(st.integers(1, 300), st.integers(0, 100))
def test_an_order_holds_every_index_once(size: int, epoch: int) -> None:
    assert sorted(permutation_of(size, 0, "order", epoch)) == list(range(size))
