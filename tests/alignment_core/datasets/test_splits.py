import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment_core.datasets.rows import Annotation
from alignment_core.datasets.splits import split_by_group

groups = st.lists(st.sampled_from([f"group {index}" for index in range(12)]), min_size=1, max_size=40)
fractions = st.sampled_from([0.0, 0.01, 0.05, 0.2, 0.5, 0.99])


def _rows(group_ids: list[str]) -> list[Annotation]:
    return [Annotation(number, "", "a", "b", 1.0, None, group) for number, group in enumerate(group_ids, 1)]


@given(groups, fractions, st.integers(0, 5))
def test_every_row_is_on_one_side_and_no_group_straddles(group_ids: list[str], fraction: float, seed: int) -> None:
    rows = _rows(group_ids)
    split = split_by_group(rows, validation_fraction=fraction, seed=seed)
    assert sorted([*split.train, *split.validation], key=lambda row: row.number) == rows
    assert not {row.group_id for row in split.train} & {row.group_id for row in split.validation}


@given(groups, fractions, st.integers(0, 5))
def test_training_is_never_empty_and_validation_only_when_it_must(
    group_ids: list[str], fraction: float, seed: int
) -> None:
    split = split_by_group(_rows(group_ids), validation_fraction=fraction, seed=seed)
    assert split.train
    assert bool(split.validation) == (fraction > 0 and len(set(group_ids)) > 1)


@given(groups, fractions, st.integers(0, 5), st.randoms())
def test_the_order_of_the_rows_does_not_matter(
    group_ids: list[str], fraction: float, seed: int, shuffler: random.Random
) -> None:
    rows = _rows(group_ids)
    shuffled = shuffler.sample(rows, len(rows))
    sides = [
        {row.number for row in split_by_group(order, validation_fraction=fraction, seed=seed).validation}
        for order in (rows, shuffled)
    ]
    assert sides[0] == sides[1]


def test_the_split_is_the_same_on_every_machine() -> None:
    rows = _rows([f"group {index}" for index in range(10)])
    held_out = split_by_group(rows, validation_fraction=0.3, seed=7).validation
    assert [row.number for row in held_out] == [4, 8]


def test_a_dataset_that_grows_keeps_its_split() -> None:
    rows = _rows([f"group {index}" for index in range(2000)])
    small = split_by_group(rows[:1000], validation_fraction=0.1, seed=0)
    large = split_by_group(rows, validation_fraction=0.1, seed=0)
    assert small.validation == [row for row in large.validation if row.number <= 1000]
    assert 150 < len(large.validation) < 250


def test_the_seed_changes_the_split() -> None:
    rows = _rows([f"group {index}" for index in range(100)])
    first, second = (split_by_group(rows, validation_fraction=0.2, seed=seed).validation for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="validation_fraction"):
        split_by_group(_rows(["a", "b"]), validation_fraction=fraction, seed=0)
