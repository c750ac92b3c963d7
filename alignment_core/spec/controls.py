"""What a report scores besides what was asked: the rewards that were trained on, and a control that was not.

A method that climbs a reward raises it; whether the images are better shows in rewards that nobody climbed. Pure data.
"""

from collections.abc import Iterator

from alignment_core.spec.evaluation import EvaluationSpec
from alignment_core.spec.method import MethodBase
from alignment_core.spec.rewards import (
    BrightnessReward,
    ColorfulnessReward,
    JpegSizeReward,
    RewardSpec,
    SingleRewardSpec,
    WeightedSumReward,
    reward_name,
)

CONTROLS = (BrightnessReward(), ColorfulnessReward(), JpegSizeReward())  # free, and what over-optimisation moves first
RESERVED = ("prompt_following", "diversity")  # figures of their own


def is_trained(reward: RewardSpec, method: MethodBase) -> bool:
    """Whether the method's rewards have anything in common with this one; in either direction and of any weight."""
    return not set(_quantities(reward)).isdisjoint(
        quantity for trained in method.trained_rewards for quantity in _quantities(trained)
    )


def with_controls(evaluation: EvaluationSpec, method: MethodBase) -> EvaluationSpec:
    """The same with every reward of the method behind those asked for, and untrained ones if there was none.

    The method's come first when none was asked for. Without prompts to draw there is no report, and nothing is added; nor is
    anything where the method climbs no reward.
    """
    if evaluation.prompts is None or not method.trained_rewards:
        return evaluation
    rewards = list(evaluation.rewards)
    asked = {_as_told(reward) for reward in rewards}
    rewards += [_renamed(reward, rewards) for reward in method.trained_rewards if _as_told(reward) not in asked]
    if all(is_trained(reward, method) for reward in rewards):
        rewards += [_renamed(control, rewards) for control in CONTROLS if not is_trained(control, method)]
    return evaluation.model_copy(update={"rewards": tuple(rewards)})


def _quantities(reward: RewardSpec) -> Iterator[str]:
    """What a reward measures, as text: without its name, and without what turns it round or tunes its scale."""
    if isinstance(reward, WeightedSumReward):
        for part in reward.parts:
            yield _quantity(part.reward)
    else:
        yield _quantity(reward)


def _quantity(reward: SingleRewardSpec) -> str:
    if isinstance(reward, JpegSizeReward):
        return reward.type
    return reward.model_dump_json(exclude={"name", "timeout_seconds", "max_attempts", "batch_size"})


def _as_told(reward: RewardSpec) -> str:
    return reward.model_dump_json(exclude={"name"})


def _renamed(reward: RewardSpec, beside: list[RewardSpec]) -> RewardSpec:
    """The reward under its own name, or with a number where that is taken."""
    taken, name, number = {*RESERVED, *map(reward_name, beside)}, reward_name(reward), 2
    if name not in taken:
        return reward
    while f"{name[:60]}-{number}" in taken:
        number += 1
    return reward.model_copy(update={"name": f"{name[:60]}-{number}"})
