"""What judges a run: the rewards of its report, the prompts that they are asked of, and what watches them on the way."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from alignment_core.datasets.prompt_lengths import measure
from alignment_core.errors import DataError
from alignment_core.evaluation.evaluate import choose_prompts
from alignment_core.evaluation.rehearsal import rehearse
from alignment_core.events import Event, WarningRaised
from alignment_core.families.family import Family
from alignment_core.families.file_hashes import FileHashes
from alignment_core.load.objective import Objective
from alignment_core.load.score_names import Role, score_name
from alignment_core.protocols import RewardModel
from alignment_core.rewards.build import build_prompt_following, build_reward
from alignment_core.rewards.remembered import BatchHashes, RememberedReward
from alignment_core.rewards.score_files import ScoreFiles
from alignment_core.spec import EvaluationSpec, JobSpec, RewardSpec, reward_name
from alignment_core.spec.controls import is_trained
from alignment_core.spec.prompts import listed
from alignment_core.training.watch import Watch


@dataclass(frozen=True)
class Judges:
    rewards: dict[str, RewardModel]
    prompt_following: RewardModel | None

    def rehearse(self, evaluation: EvaluationSpec, prompts: Sequence[str]) -> None:
        """Score blank images, so that a prompt that a reward cannot read stops the run now and not after training."""
        following = {} if self.prompt_following is None else {"prompt_following": self.prompt_following}
        rehearse({**self.rewards, **following}, choose_prompts(prompts, evaluation.max_prompts), evaluation.batch_size)


def build_judges(evaluation: EvaluationSpec, device: torch.device, cache_dir: Path | None = None) -> Judges:
    """The judges; with a `cache_dir` none of them is asked twice for the same images."""
    remembered = _remembered_in(cache_dir, device)
    rewards = {
        reward_name(reward): remembered(build_reward(reward, device), reward, "score") for reward in evaluation.rewards
    }
    judge = evaluation.prompt_following
    if judge is None:
        return Judges(rewards, None)
    return Judges(rewards, remembered(build_prompt_following(judge, device), judge, "prompt_following"))


def _remembered_in(
    cache_dir: Path | None, device: torch.device
) -> Callable[[RewardModel, RewardSpec, Role], RewardModel]:
    """What makes a reward remember its scores, where there is a place for them and the reward has a name."""
    if cache_dir is None:
        return lambda reward, spec, role: reward
    hashes, batches = FileHashes(cache_dir / "hashes"), BatchHashes()

    def remembered(reward: RewardModel, spec: RewardSpec, role: Role) -> RewardModel:
        name = score_name(spec, role, device, hashes)
        return reward if name is None else RememberedReward(reward, ScoreFiles(cache_dir / "scores" / name), batches)

    return remembered


def held_out_prompts(
    evaluation: EvaluationSpec, objective: Objective, family: Family
) -> Generator[Event, None, Sequence[str]]:
    """The prompts that the report is on, with warnings of those that are trained on or longer than the encoder reads.

    Raises `DataError` where there is none for a report that is asked for.
    """
    prompts = listed(evaluation.prompts or objective.held_out_prompts)
    if evaluation.rewards and not prompts:
        raise DataError(
            "no_evaluation_prompts",
            "evaluation.rewards asks for a report, and there are no held-out prompts",
            hint="Give evaluation.prompts, or preference data and a training.validation_fraction that holds out a group with a prompt.",
        )
    if seen := set(prompts) & objective.training_prompts:
        yield _prompts_seen(len(seen), len(set(prompts)))
    lengths = measure(prompts, family.tokenize, family.max_tokens)
    if lengths.cut:
        yield lengths.warning("evaluation prompts", sum(one in lengths.cut for one in prompts), len(prompts))
    return prompts


def build_watch(spec: JobSpec) -> Watch:
    """The first evaluation reward chooses the best; its rise, or that of one that is trained on, may be hacking."""
    judged = [reward_name(reward) for reward in spec.evaluation.rewards]
    trained = frozenset(reward_name(reward) for reward in spec.evaluation.rewards if is_trained(reward, spec.method))
    primary = next(iter(judged), None)
    return Watch(
        spec.guards, primary=primary, risen=next((name for name in judged if name in trained), primary), trained=trained
    )


def _prompts_seen(num_seen: int, num_prompts: int) -> WarningRaised:
    return WarningRaised(
        code="evaluation_prompts_seen",
        message=f"{num_seen} of {num_prompts} evaluation prompts are trained on too: the report is not on held-out prompts",
    )
