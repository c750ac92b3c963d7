"""Parameters of the judges of a run, which are kept in float32 beside the model from the start: each where it is named.

Of the published weights, counted by their shapes; a `clip_score` is taken to be by CLIP ViT-L/14, since which one it is its files
alone say. Judges that are smaller than a text encoder, or elsewhere, count nothing.
"""

from collections.abc import Iterable, Iterator

from alignment_core.spec.job import JobSpec
from alignment_core.spec.rewards import RewardSpec, SingleRewardSpec, WeightedSumReward

CLIP_H, CLIP_L = 986_109_441, 427_616_513
BLIP = 446_140_000  # ViT-L/16 and a BERT that looks at it: 1.78 GB of ImageReward.pt
PARAMETERS = {
    "pick_score": CLIP_H,
    "hpsv2": CLIP_H,
    "hpsv2.1": CLIP_H,
    "image_reward": BLIP,
    "aesthetic": CLIP_L,
    "clip_score": CLIP_L,
}


def judges_parameters(spec: JobSpec) -> int:
    """Of all rewards of the method and of the report, and of who judges how prompts are followed."""
    judge = spec.evaluation.prompt_following
    return parameters_of((*spec.method.trained_rewards, *spec.evaluation.rewards, *(() if judge is None else (judge,))))


def parameters_of(judges: Iterable[RewardSpec]) -> int:
    """Of these."""
    return sum(PARAMETERS.get(reward.type, 0) for judge in judges for reward in _single(judge))


def _single(reward: RewardSpec) -> Iterator[SingleRewardSpec]:
    if isinstance(reward, WeightedSumReward):
        yield from (part.reward for part in reward.parts)
    else:
        yield reward
