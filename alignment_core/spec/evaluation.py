"""How the aligned model is compared with the one it started from, as frozen data; re-exported by `spec`."""

from pydantic import Field, field_validator

from alignment_core.spec.base import Spec, misfit
from alignment_core.spec.prompts import HeldOutPrompts
from alignment_core.spec.rewards import RewardSpec, check_unique_names, reward_name


class EvaluationSpec(Spec):
    """Held-out comparison of the policy with the model it started from: same prompts, same seeds."""

    prompts: HeldOutPrompts | None = Field(
        default=None,
        description="Held-out prompts: a list of at most 10,000, or where they are; those of the validation split when left out.",
    )
    max_prompts: int = Field(
        default=128, ge=1, le=10_000, description="At most this many prompts are used, the first ones."
    )
    seeds_per_prompt: int = Field(
        default=2, ge=1, le=64, description="Images per prompt and model. Diversity needs two."
    )
    rewards: tuple[RewardSpec, ...] = Field(
        default=(), max_length=16, description="Scores in the report. The first one decides the verdict."
    )
    prompt_following: RewardSpec | None = Field(
        default=None, description="A judge of prompt-following that no method optimises."
    )
    every: int | None = Field(
        default=None,
        ge=1,
        description="Optimiser steps between probes: the rewards on a few held-out prompts while the model trains, which "
        "choose the best checkpoint and feed the guards. Off when left out; at the last step too when on.",
    )
    probe_prompts: int = Field(
        default=16,
        ge=1,
        le=1000,
        description="Prompts of a probe: the last ones, so that the report has others where there are more than its "
        "`max_prompts`.",
    )
    num_inference_steps: int = Field(
        default=20, ge=1, le=1000, description="Denoising steps of an image, of every model that is compared."
    )
    guidance_scale: float = Field(
        default=5.0, ge=0, le=100, description="Scale of classifier-free guidance (arXiv 2207.12598); 1 is without."
    )
    batch_size: int = Field(default=8, ge=1, le=1024, description="Images sampled at once.")
    grid_prompts: int = Field(default=8, ge=1, le=64, description="Prompts shown in the image grid.")
    bootstrap_resamples: int = Field(
        default=10_000,
        ge=100,
        le=1_000_000,
        description="Draws of the prompts, with replacement, that intervals come from.",
    )
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="How often an interval holds the true gain: 0.95 is 95 %."
    )

    @field_validator("rewards")
    @classmethod
    def _names_are_unique(cls, rewards: tuple[RewardSpec, ...]) -> tuple[RewardSpec, ...]:
        check_unique_names(rewards)
        for index, name in enumerate(map(reward_name, rewards)):
            if name in ("prompt_following", "diversity"):
                raise misfit(
                    f"a reward cannot be named {name}: the report keeps the name for a figure of its own",
                    f"{index}.name",
                )
        return rewards
