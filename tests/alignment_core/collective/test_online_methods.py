"""Online methods in two processes: trajectories, rewards and micro-batches are shared out, and the numbers are those of one."""

from pathlib import Path
from typing import Any

import pytest

from alignment_core.spec import JobSpec
from tests.alignment_core.collective.pair import Pair
from tests.alignment_core.collective.two import Done, farthest, in_one, in_two, in_twos, said_by_second
from tests.alignment_core.rollouts.test_online import METHODS, online_spec

ROUNDING = 2e-5  # of weights that Adam moved by about 6e-3


def spec_of(name: str, model: Path, **changes: Any) -> JobSpec:
    """Six steps of four, an iteration's three and one more iteration; two micro-batches of two in one process."""
    return online_spec(model, METHODS[name], **changes)


def assert_same(two: Done, one: Done, last_step: int = 6) -> None:
    assert two.metric("loss") == pytest.approx(one.metric("loss"), rel=1e-3, abs=1e-5)
    assert two.metric("reward") == pytest.approx(one.metric("reward"), rel=1e-4)
    assert farthest(two.checkpoint(last_step), one.checkpoint(last_step)) < ROUNDING


@pytest.fixture(scope="module")
def two(pair: Pair, tiny_model: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    specs = {name: in_twos(spec_of(name, tiny_model)) for name in METHODS}
    return in_two(pair, specs, tmp_path_factory.mktemp("two"), cache_dir)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_take_the_steps_of_one(
    name: str, two: dict[str, Done], tiny_model: Path, cache_dir: Path, tmp_path: Path
) -> None:
    one = in_one(spec_of(name, tiny_model), tmp_path, cache_dir)
    assert_same(two[name], one)
    assert two[name].events[0]["examples_per_step"] == one.events[0]["examples_per_step"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_both_processes_say_the_same_to_the_bit(name: str, two: dict[str, Done]) -> None:
    first, second = two[name], said_by_second(two[name])
    assert [event["metrics"] for event in first.of_type("step_completed")] == [
        event["metrics"] for event in second.of_type("step_completed")
    ]
