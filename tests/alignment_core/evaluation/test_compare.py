from collections.abc import Generator, Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from alignment_core.errors import AlignmentError
from alignment_core.evaluation.compare import Comparison, compare, plan_comparison, seeds_of
from alignment_core.evaluation.diversity import pairwise_distance
from alignment_core.evaluation.draw_and_judge import Judges
from alignment_core.events import PhaseProgressed
from alignment_core.protocols import RewardModel, Sampler
from alignment_core.rewards.brightness import Brightness
from alignment_core.rewards.colorfulness import Colorfulness
from tests.alignment_core.evaluation.models import NoiseSampler, PromptLength

PROMPTS = ["a", "bb", "ccc", "dddd", "eeeee"]
REWARDS: Mapping[str, RewardModel] = {"brightness": Brightness(), "colorfulness": Colorfulness()}


def running(
    base: Sampler,
    policy: Sampler,
    *,
    prompts: Sequence[str] = PROMPTS,
    num_seeds: int = 3,
    batch_size: int = 4,
    grid_prompts: int = 2,
    rewards: Mapping[str, RewardModel] = REWARDS,
    judge: RewardModel | None = None,
) -> Generator[PhaseProgressed, None, Comparison]:
    plan = plan_comparison(
        prompts, seeds_per_prompt=num_seeds, batch_size=batch_size, grid_prompts=grid_prompts, seed=0
    )
    return compare(base, policy, plan, Judges(rewards, judge))


def finish(run: Generator[PhaseProgressed, None, Comparison]) -> tuple[Comparison, list[PhaseProgressed]]:
    events: list[PhaseProgressed] = []
    while True:
        try:
            events.append(next(run))
        except StopIteration as stop:
            return stop.value, events


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_the_comparison_does_not_depend_on_the_batch_size(batch_size: int) -> None:
    expected, _ = finish(running(NoiseSampler(), NoiseSampler(0.1), batch_size=4))
    found, _ = finish(running(NoiseSampler(), NoiseSampler(0.1), batch_size=batch_size))
    assert found.seeds == expected.seeds
    for one, other in ((found.base, expected.base), (found.policy, expected.policy)):
        for name in REWARDS:
            np.testing.assert_allclose(one.scores[name], other.scores[name], rtol=1e-5)
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.distances, other.distances)


def test_both_models_get_the_same_prompts_and_seeds_prompt_by_prompt() -> None:
    base, policy = NoiseSampler(), NoiseSampler()
    comparison, _ = finish(running(base, policy))
    expected = [(prompt, seed) for prompt, seeds in zip(PROMPTS, comparison.seeds, strict=True) for seed in seeds]
    assert base.asked == policy.asked == expected


def test_a_score_stands_at_its_prompt_and_seed() -> None:
    comparison, _ = finish(running(NoiseSampler(), NoiseSampler(), rewards={"length": PromptLength()}))
    np.testing.assert_array_equal(comparison.base.scores["length"], np.repeat([[1], [2], [3], [4], [5]], 3, axis=1))


def test_a_brighter_policy_gains_just_its_offset() -> None:
    comparison, _ = finish(running(NoiseSampler(), NoiseSampler(offset=51 / 255)))
    gain = comparison.policy.scores["brightness"] - comparison.base.scores["brightness"]
    np.testing.assert_allclose(gain, 0.2, atol=1e-4)


def test_a_model_ties_with_itself() -> None:
    comparison, _ = finish(running(NoiseSampler(), NoiseSampler()))
    for name in REWARDS:
        np.testing.assert_array_equal(comparison.base.scores[name], comparison.policy.scores[name])


def test_scores_are_those_of_the_kept_8_bit_images() -> None:
    comparison, _ = finish(running(NoiseSampler(), NoiseSampler(), grid_prompts=5))
    images = torch.from_numpy(comparison.base.images).flatten(0, 1).permute(0, 3, 1, 2) / 255
    scores = Colorfulness()(images, [""] * len(images)).reshape(5, 3).numpy()
    np.testing.assert_allclose(comparison.base.scores["colorfulness"], scores, rtol=1e-6)


def test_images_are_kept_for_prompts_from_all_over_the_list_and_no_others() -> None:
    comparison, _ = finish(running(NoiseSampler(), NoiseSampler(), grid_prompts=2))
    assert comparison.shown == (0, 2)
    assert comparison.base.images.shape == (2, 3, 16, 16, 3)
    drawn = NoiseSampler()(["ccc"] * 3, comparison.seeds[2])
    expected = (drawn * 255).round().byte().permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(comparison.base.images[1], expected)
    every, _ = finish(running(NoiseSampler(), NoiseSampler(), grid_prompts=64))
    assert every.shown == (0, 1, 2, 3, 4)


def test_every_prompt_has_its_distance_and_a_single_seed_has_none() -> None:
    comparison, _ = finish(running(NoiseSampler(), NoiseSampler(), grid_prompts=5))
    distances = [[pairwise_distance(images)] for images in comparison.base.images]
    assert comparison.base.distances == pytest.approx(np.array(distances))
    alone, _ = finish(running(NoiseSampler(), NoiseSampler(), num_seeds=1))
    assert alone.base.distances is None


def test_the_judge_scores_beside_the_rewards() -> None:
    comparison, _ = finish(running(NoiseSampler(), NoiseSampler(), judge=PromptLength()))
    assert list(comparison.policy.scores) == ["brightness", "colorfulness", "prompt_following"]
    assert comparison.policy.scores["prompt_following"][4].tolist() == [5, 5, 5]


def test_progress_comes_after_every_batch_of_either_model() -> None:
    _, (*events, divided) = finish(running(NoiseSampler(), NoiseSampler(), batch_size=4))
    assert [event.done for event in events] == [4, 8, 12, 16, 20, 24, 27, 30]
    assert divided.type == "phase_divided"
    assert {(event.phase, event.total) for event in events} == {("sampling", 30)}


def test_a_caller_that_leaves_stops_the_sampling() -> None:
    base, policy = NoiseSampler(), NoiseSampler()
    run = running(base, policy, batch_size=4)
    next(run)
    run.close()
    assert (len(base.asked), len(policy.asked)) == (4, 0)


class OverflowingSampler:
    """Draws one NaN pixel for the prompt `ccc`, as a diverged policy would."""

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        images = NoiseSampler()(prompts, seeds)
        for row, prompt in enumerate(prompts):
            if prompt == "ccc":
                images[row, 0, 0, 0] = float("nan")
        return images


def test_a_model_that_draws_nan_is_named_with_the_prompt() -> None:
    with pytest.raises(AlignmentError, match=r"policy model drew NaN .* 'ccc'") as raised:
        finish(running(NoiseSampler(), OverflowingSampler()))
    assert raised.value.code == "images_not_finite"


def test_a_reward_cannot_take_the_judges_name() -> None:
    with pytest.raises(ValueError, match="prompt_following"):
        finish(running(NoiseSampler(), NoiseSampler(), rewards={"prompt_following": Brightness()}))


def test_a_comparison_needs_prompts() -> None:
    with pytest.raises(ValueError, match="0 prompts"):
        finish(running(NoiseSampler(), NoiseSampler(), prompts=[]))


def test_seeds_follow_from_the_runs_seed_and_the_positions_alone() -> None:
    seeds = seeds_of(0, 50, 4)
    assert seeds == seeds_of(0, 50, 4)
    assert tuple(row[:2] for row in seeds[:20]) == seeds_of(0, 20, 2)
    flat = [seed for row in seeds for seed in row]
    assert len(set(flat)) == 200
    assert all(0 <= seed < 2**32 for seed in flat)
    assert not set(flat) & {seed for row in seeds_of(1, 50, 4) for seed in row}
