import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.statistics import holm, mean_of, paired_test


def test_mean_comes_with_students_interval() -> None:
    mean = mean_of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean.value == 3.0
    assert mean.half_width == pytest.approx(2.776445105 * math.sqrt(2.5 / 5), rel=1e-9)  # t(0.975, 4)


def test_paired_test_looks_at_the_differences_seed_by_seed() -> None:
    """Differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t = 3.4641, p of two degrees of freedom 0.07418."""
    test = paired_test([11.0, 102.0, 1003.0], [10.0, 100.0, 1000.0])
    assert test.difference.value == 2.0
    assert test.p_value == pytest.approx(0.0741799, abs=1e-6)


def test_equal_rows_differ_by_nothing() -> None:
    assert paired_test([1.0, 2.0], [1.0, 2.0]).p_value == 1.0


def test_holm_multiplies_the_smallest_by_the_number_of_tests_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_never_makes_a_claim_stronger(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, corrected, strict=True))
