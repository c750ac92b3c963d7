"""What the specs of online methods have alike: how images are drawn and judged, in pairs or each by itself. Pure data."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Literal, Self, TypeVar

from pydantic import Field, model_validator

from alignment_core.spec.base import misfit
from alignment_core.spec.method import LearnsFrom, MethodBase, Signal
from alignment_core.spec.prompts import TrainingPrompts
from alignment_core.spec.rewards import RewardSpec, reward_name

FEW_PROMPTS = 64  # whose transitions divide by any batch that is usual


class Rollouts(MethodBase):
    """What every online method has: prompts to draw images for, and how they are drawn and judged.

    DDIM with noise: `eta` 0 would be deterministic, and nothing could be learnt from it. The guidance scale holds for
    sampling, training and reference alike.
    """

    learns_from: ClassVar[LearnsFrom] = "rewards"

    prompts: TrainingPrompts = Field(
        description="Training prompts, a list of at most 100,000 or where they are; each iteration takes the next ones, shuffled."
    )
    num_inference_steps: int = Field(default=20, ge=2, le=1000, description="T, the DDIM steps of a trajectory.")
    eta: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="DDIM's noise: 1 is the published setting, and 0 would draw without noise, which nothing is learnt from.",
    )
    guidance_scale: float = Field(
        default=5.0, ge=1, le=100, description="Classifier-free guidance everywhere; 1 is without."
    )

    states_per_example: ClassVar[int] = 1
    """That go through the networks for an example: the step of one trajectory, or of both that are compared."""

    @property
    def trained_steps(self) -> int:
        """Steps of each trajectory that are trained."""
        return self.num_inference_steps

    @property
    def keeps_predictions(self) -> bool:
        """Whether what the policy said while it drew is what a micro-batch trains."""
        return False

    @property
    def climbs_through(self) -> Literal["decoder", "network"] | None:
        """What a winner follows its reward's gradient back through: the decoder, or the network that foresees it as well."""
        return None

    @abstractmethod
    def trajectories_of_a_turn(self, examples_per_step: int) -> int:
        """Drawn in an iteration, where optimiser steps have this many examples."""

    @property
    def forwards_of_a_trajectory(self) -> float:
        """Of one image through the denoiser, guidance aside, until it and what branches off it are drawn."""
        return self.num_inference_steps

    @property
    def judged_of_a_trajectory(self) -> int:
        """Images that are decoded and judged."""
        return 1

    def must_have_noise(self, silent: frozenset[int]) -> frozenset[int]:
        """Which of the steps without noise stand in the way: where steps are drawn, all if too few others are left."""
        return silent if self.num_inference_steps - len(silent) < self.trained_steps else frozenset()

    def drawn_together(self, num_steps: int, examples_per_step: int) -> tuple[int, int]:
        """Of `num_steps` steps of a trajectory that may be drawn: how many draws without replacement there are, and are made."""
        return num_steps, self.trained_steps


class PairedRollouts(Rollouts):
    """Online methods that rank two images: by one reward, or by Pareto dominance of several, where else it is a tie."""

    ranks: ClassVar[bool] = True

    rewards: tuple[RewardSpec, ...] = Field(min_length=1, max_length=16, description="What the images are ranked by.")
    beta: float = Field(
        default=0.1, gt=0, le=1e6, description="Multiplies a log-ratio; not comparable with Diffusion-DPO's beta."
    )
    logprob_reduction: Literal["mean", "sum"] = Field(
        default="mean", description="Log-probabilities over the latent; beta with `mean` is beta/D with `sum`."
    )

    @model_validator(mode="after")
    def _rewards_have_names(self) -> Self:
        names = [reward_name(reward) for reward in self.rewards]
        if len(set(names)) < len(names):
            raise misfit("rewards must have different names; set `name` to tell them apart", "rewards")
        return self

    @property
    def trained_rewards(self) -> tuple[RewardSpec, ...]:
        return self.rewards


class PolicyGradientRollouts(Rollouts):
    """Online methods that weigh every step of a trajectory by the reward of its image."""

    signal: ClassVar[Signal] = "advantage"

    reward: RewardSpec
    prompts_per_iteration: int = Field(default=16, ge=1, le=65536, description="Prompts drawn for in one iteration.")
    samples_per_prompt: int = Field(default=1, ge=1, le=1024, description="Trajectories of each prompt an iteration.")
    ratio_clamp: float = Field(default=1e-4, gt=0, lt=1, description="c: ratios are clamped to 1 +- c (published).")

    @property
    def trained_rewards(self) -> tuple[RewardSpec, ...]:
        return (self.reward,)

    def trajectories_of_a_turn(self, examples_per_step: int) -> int:
        return self.prompts_per_iteration * self.samples_per_prompt

    def with_shorter_turns(self) -> Iterator[Self]:
        return with_fewer_prompts(self, self.prompts_per_iteration)


M = TypeVar("M", bound=MethodBase)


def with_fewer_prompts(method: M, prompts_per_iteration: int) -> Iterator[M]:
    """The method with 1, 2, 3, ... prompts an iteration, and at last as many as it has."""
    for num in [*range(1, min(prompts_per_iteration, FEW_PROMPTS)), prompts_per_iteration]:
        yield method.model_copy(update={"prompts_per_iteration": num})
