"""Which timesteps are drawn and how much each counts, as frozen data; re-exported by `spec`.

Bins are numbered from the noise: bin 0 of K is the noisiest. Kang et al. is "Rethinking Direct Preference Optimization in
Diffusion Models", arXiv 2505.18736; equations and the choices that the paper leaves open are in `docs/methods.md`.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from alignment_core.spec.base import Spec, misfit
from alignment_core.spec.unions import OneOf, preset_among

Positive = Annotated[float, Field(gt=0, le=1e6)]
Probability = Annotated[float, Field(ge=0, le=1)]


class UniformTimesteps(Spec):
    """t uniform on the training timesteps; every timestep counts the same."""

    type: Literal["uniform"] = "uniform"


# --- which timesteps are drawn -------------------------------------------------------------------------------------


class UniformSampler(Spec):
    """t uniform on the training timesteps."""

    type: Literal["uniform"] = "uniform"


class DiscountedSampler(Spec):
    """Bin k with probability proportional to gamma^k, so that noisy steps are drawn more often; t uniform in the bin."""

    type: Literal["discounted"] = "discounted"
    gamma: float = Field(default=0.9, gt=0, le=1, description="Kang et al.: 0.9; 1 draws all bins alike.")
    importance_correction: bool = Field(
        default=False,
        description="Weight each loss by 1/(K p_k), which undoes the skew on average. The paper does not.",
    )


class TableSampler(Spec):
    """Bin k with the probability of a table, noisiest first; t uniform in the bin."""

    type: Literal["table"] = "table"
    probabilities: tuple[Probability, ...] = Field(
        min_length=1, max_length=1000, description="One for each bin, noisiest first; they sum to 1."
    )
    importance_correction: bool = Field(default=False, description="Weight each loss by 1/(K p_k).")

    @model_validator(mode="after")
    def _sums_to_one(self) -> Self:
        if abs(sum(self.probabilities) - 1) > 1e-6:
            raise misfit(f"probabilities sum to {sum(self.probabilities):g}, and must sum to 1", "probabilities")
        return self

    def over_steps(self, num_steps: int) -> list[float]:
        """The same for the steps of a sampler, noisiest first: a bin's probability is shared by its steps."""
        places = [step * len(self.probabilities) // num_steps for step in range(num_steps)]
        return [self.probabilities[place] / places.count(place) for place in places]


class LogitNormalSampler(Spec):
    """(t + u) / N = sigmoid(mean + std z), z standard normal, u the place inside the timestep."""

    type: Literal["logit_normal"] = "logit_normal"
    mean: float = Field(
        default=0.0, ge=-3, le=3, description="0 as for flow models; above 0 noisy steps come more often."
    )
    std: float = Field(default=1.0, ge=0.3, le=10, description="1 as for flow models.")
    importance_correction: bool = Field(
        default=False,
        description="Weight each loss by 1/(K p_k) over `num_bins` bins: over single timesteps the tails would weigh 10^8.",
    )


SamplerSpec = Annotated[UniformSampler | DiscountedSampler | TableSampler | LogitNormalSampler, OneOf()]


# --- lambda(t), inside the sigmoid ---------------------------------------------------------------------------------


class ConstantScale(Spec):
    """lambda(t) is one number; 1 is plain, anything else is another beta."""

    type: Literal["constant"] = "constant"
    value: Positive = Field(default=1.0, description="What the preference logit is multiplied by at every t.")


class MinMaxScale(Spec):
    """lambda(t) = 1 + (q - q_min) / (q_max - q_min) with q = 1/sqrt(SNR(t)): 1 at the cleanest t, 2 at the noisiest."""

    type: Literal["minmax_inv_sqrt_snr"] = "minmax_inv_sqrt_snr"


class TableScale(Spec):
    """lambda(t) from a table over the bins, noisiest first."""

    type: Literal["table"] = "table"
    values: tuple[Positive, ...] = Field(min_length=1, max_length=1000)


RewardScaleSpec = Annotated[ConstantScale | MinMaxScale | TableScale, OneOf()]


# --- w(t), on the loss ---------------------------------------------------------------------------------------------


class ConstantWeight(Spec):
    """w(t) = 1."""

    type: Literal["constant"] = "constant"


class TableWeight(Spec):
    """w(t) from a table over the bins, noisiest first; used as written."""

    type: Literal["table"] = "table"
    values: tuple[Annotated[float, Field(ge=0, le=1e6)], ...] = Field(min_length=1, max_length=1000)


class VarianceWeight(Spec):
    """w(t) from the running variance v_k of the reward signal Delta in each bin: (v_k)^-p, normalised and clipped.

    Weights are equal until 99 % of the draws are in bins that have seen `min_samples` pairs; rarer bins stay at the mean.
    """

    type: Literal["variance"] = "variance"
    direction: Literal["inverse", "direct"] = Field(
        default="inverse", description="`inverse` gives bins of large variance less say; `direct` more."
    )
    power: Literal["std", "variance"] = Field(default="std", description="p = 1/2 or p = 1.")
    normalization: Literal["mean1", "sum1"] = Field(
        default="mean1",
        description="`mean1`: weights average 1 under the sampler, with its correction if it has one; `sum1`: they sum to 1, and "
        "losses are K times smaller from the first step on.",
    )
    clip: tuple[Positive, Positive] | None = Field(
        default=(0.2, 5.0), description="Bounds of the `mean1` weights, which are normalised again after clipping."
    )
    rho: float = Field(default=0.99, ge=0, lt=1, description="How much of the running statistics a step keeps.")
    min_samples: int = Field(default=64, ge=2, le=1_000_000, description="Pairs a bin must see before weights apply.")
    tnorm: Literal["add", "replace"] = Field(
        default="add", description="`add`: l + lambda_2 w l; `replace`: lambda_2 w l."
    )
    lambda_2: float = Field(default=1.0, ge=0, le=1e6, description="Weight of the weighted loss, as `tnorm` adds it.")
    stat_against: Literal["reference", "initial"] | None = Field(
        default=None,
        description="The model that Delta is measured against. When left out: `initial` where the reference may be "
        "copied whole (a copy resets every variance to 0), else `reference`.",
    )

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.clip is not None and not self.clip[0] <= 1 <= self.clip[1]:
            raise misfit(f"clip {list(self.clip)}: the bounds must lie on either side of 1", "clip")
        return self


LossWeightSpec = Annotated[ConstantWeight | TableWeight | VarianceWeight, OneOf()]


# --- together ------------------------------------------------------------------------------------------------------


class TimestepAware(Spec):
    """Timestep-aware training: a sampler over noise bins, lambda(t) inside the sigmoid, w(t) on the loss."""

    type: Literal["timestep_aware"] = "timestep_aware"
    num_bins: int = Field(default=10, ge=1, le=1000, description="K, the bins of equal width over t.")
    sampler: SamplerSpec = UniformSampler()
    reward_scale: RewardScaleSpec = ConstantScale()
    loss_weight: LossWeightSpec = ConstantWeight()

    @model_validator(mode="after")
    def _tables_have_one_value_a_bin(self) -> Self:
        tables = {
            "sampler.probabilities": self.sampler.probabilities if isinstance(self.sampler, TableSampler) else None,
            "reward_scale.values": self.reward_scale.values if isinstance(self.reward_scale, TableScale) else None,
            "loss_weight.values": self.loss_weight.values if isinstance(self.loss_weight, TableWeight) else None,
        }
        for name, table in tables.items():
            if table is not None and len(table) != self.num_bins:
                raise misfit(f"{name} has {len(table)} values, and num_bins is {self.num_bins}", name)
        return self


class TimestepPreset(Spec):
    """Timestep-aware training with settings that belong together; the resolved spec shows them.

    `paper`: discounted sampler (gamma 0.9, 10 bins) and lambda(t) from the SNR (Kang et al.). `seed`: a third term weighted
    by the inverse standard deviation of the reward signal. `adaptive`: the same running weights instead of the plain loss.
    """

    type: Literal["preset"] = "preset"
    name: Literal["paper", "seed", "adaptive"]


TIMESTEP_PRESETS = {
    "paper": TimestepAware(sampler=DiscountedSampler(), reward_scale=MinMaxScale()),
    "seed": TimestepAware(loss_weight=VarianceWeight()),
    "adaptive": TimestepAware(loss_weight=VarianceWeight(tnorm="replace")),
}

TimestepSpec = Annotated[UniformTimesteps | TimestepAware | TimestepPreset, OneOf(preset_among(TIMESTEP_PRESETS))]


def resolve_timesteps(timesteps: TimestepSpec, *, reference_is_copied: bool) -> UniformTimesteps | TimestepAware:
    """The same choice without presets, and with `stat_against` written out."""
    if isinstance(timesteps, TimestepPreset):
        timesteps = TIMESTEP_PRESETS[timesteps.name]
    if not isinstance(timesteps, TimestepAware) or not isinstance(timesteps.loss_weight, VarianceWeight):
        return timesteps
    if timesteps.loss_weight.stat_against is not None:
        return timesteps
    weight = timesteps.loss_weight.model_copy(
        update={"stat_against": "initial" if reference_is_copied else "reference"}
    )
    return timesteps.model_copy(update={"loss_weight": weight})
