"""Two models on the same prompts and seeds, in figures."""

from pydantic import Field

from alignment_core.reports.base import ReportBase
from alignment_core.reports.intervals import Interval


class RewardComparison(ReportBase):
    """One reward, policy against base on the same prompts and seeds. Gains are policy minus base."""

    name: str
    trained: bool = Field(default=False, description="Whether the method optimised it; preference data are no reward.")
    base_mean: float
    policy_mean: float
    gain: float
    gain_interval: Interval = Field(description="Bootstrap over prompts, by the report's `interval_method`.")
    p_value: float | None = Field(
        default=None,
        description="Two-sided, of a gain of zero: paired t-test over the prompts' mean gains, not corrected for several "
        "rewards. Null with one prompt, or where every prompt gains the same.",
    )
    holm_p_value: float | None = Field(
        default=None,
        description="`p_value` after Holm's correction over the contenders of an evaluation that has more than two; null elsewhere.",
    )
    effect_size: float | None = Field(
        default=None,
        description="Gain in standard deviations of the base images' scores, so that rewards compare; null where those "
        "scores are all equal.",
    )
    win_rate: float = Field(
        description="Share of (prompt, seed) pairs where the policy scores higher; ties count half."
    )
    bootstrap_interval: Interval = Field(description="Of `win_rate`: bootstrap over prompts, by `interval_method`.")
    prompts_won: float | None = Field(
        default=None, description="Share of prompts whose mean score over the seeds is higher; ties count half."
    )
    wilson_interval: Interval | None = Field(
        default=None, description="Of `prompts_won`: Wilson's score interval. Null in reports of format 1."
    )
    num_ties: int


class Diversity(ReportBase):
    """Mean distance of two images of one prompt: root mean square pixel difference in [0, 1]."""

    base: float
    policy: float
    change_interval: Interval | None = Field(
        default=None, description="Of policy minus base: bootstrap over prompts, by `interval_method`."
    )


class DriftBin(ReportBase):
    first_timestep: int
    last_timestep: int
    eps_dist: float


class Drift(ReportBase):
    """How far the policy is from the base model, on the images that the policy drew."""

    eps_dist: float = Field(
        description="Mean squared distance of the two predictions, without guidance, at noised images of the policy."
    )
    by_timestep: list[DriftBin] = Field(description="The same in equal bins over t, the noisiest first.")
    num_draws: int = Field(description="Noisy images measured at, spread evenly over the bins.")
    relative_weight_change: float | None = Field(
        description="Norm of the change of the trained weights over the norm of those weights in the initial model; LoRA: "
        "of s B A over the adapted weights. Null in an evaluation, whose models need not come from each other."
    )
