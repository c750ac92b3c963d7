"""What a report scores besides what was asked."""

from typing import Any

import pytest

from alignment_core.spec import JobSpec, reward_name
from alignment_core.spec.controls import is_trained

PROMPTS = ["a red circle", "a blue square"]


def spec(rewards: list[dict[str, Any]], asked: list[dict[str, Any]], prompts: list[str] | None = PROMPTS) -> JobSpec:
    return JobSpec.model_validate(
        {
            "model": {"type": "local", "path": "model"},
            "method": {"type": "tailorpo", "prompts": ["a circle"], "rewards": rewards},
            "evaluation": {"prompts": prompts, "rewards": asked},
        }
    )


def names(job: JobSpec) -> list[str]:
    return [reward_name(reward) for reward in job.resolved().evaluation.rewards]


def trained(job: JobSpec) -> list[str]:
    resolved = job.resolved()
    assert resolved.is_online
    return [reward_name(one) for one in resolved.evaluation.rewards if is_trained(one, resolved.method)]  # pyright: ignore[reportArgumentType]


COLOR, BRIGHT, SYMMETRY = {"type": "colorfulness"}, {"type": "brightness"}, {"type": "symmetry"}
SMALL, LARGE = ({"type": "jpeg_size", "direction": one} for one in ("compressible", "incompressible"))


def weighted(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "weighted_sum", "parts": [{"weight": -2.0, "reward": part} for part in parts]}


@pytest.mark.parametrize(
    ("rewards", "asked", "expected", "of_them_trained"),
    [
        ([COLOR], [], ["colorfulness", "brightness", "jpeg_size"], ["colorfulness"]),
        ([COLOR], [COLOR], ["colorfulness", "brightness", "jpeg_size"], ["colorfulness"]),
        ([COLOR], [SYMMETRY], ["symmetry", "colorfulness"], ["colorfulness"]),
        ([COLOR], [BRIGHT, COLOR], ["brightness", "colorfulness"], ["colorfulness"]),
        ([SMALL], [LARGE], ["jpeg_size", "jpeg_size-2", "brightness", "colorfulness"], ["jpeg_size", "jpeg_size-2"]),
        ([weighted(COLOR, BRIGHT)], [COLOR], ["colorfulness", "weighted_sum", "jpeg_size"], ["colorfulness", "weighted_sum"]),
        ([{**COLOR, "name": "taste"}], [COLOR], ["colorfulness", "brightness", "jpeg_size"], ["colorfulness"]),
        ([{**COLOR, "name": "prompt_following"}], [BRIGHT], ["brightness", "prompt_following-2"], ["prompt_following-2"]),
        ([COLOR, BRIGHT, SMALL], [], ["colorfulness", "brightness", "jpeg_size"], ["colorfulness", "brightness", "jpeg_size"]),
    ],
    ids=["none", "trained", "untrained", "both", "turned_round", "sum", "renamed", "reserved", "everything"],
)  # fmt: skip
def test_what_was_trained_on_is_scored_and_something_that_was_not(
    rewards: list[dict[str, Any]], asked: list[dict[str, Any]], expected: list[str], of_them_trained: list[str]
) -> None:
    job = spec(rewards, asked)
    assert names(job) == expected
    assert trained(job) == of_them_trained
    assert job.resolved().resolved() == job.resolved()


def test_without_prompts_to_draw_there_is_no_report_and_nothing_is_added() -> None:
    assert names(spec([COLOR], [], prompts=None)) == []


def test_a_full_shelf_of_rewards_keeps_its_own_verdict() -> None:
    assert names(spec([COLOR], [SYMMETRY]))[0] == "symmetry"
