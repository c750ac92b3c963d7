"""The methods that draw their own images, as frozen data; re-exported by `spec`. `docs/methods.md` has the equations."""

from typing import Literal, Self

from pydantic import Field, model_validator

from alignment_core.spec.base import Spec, misfit
from alignment_core.spec.reference import FrozenReference, ReferenceSpec, drift_metric, resolve_reference
from alignment_core.spec.rewards import RewardSpec, reward_name, without_gradient
from alignment_core.spec.sources import Prompts
from alignment_core.spec.timesteps import (
    ConstantScale,
    TableSampler,
    TimestepSpec,
    UniformTimesteps,
    VarianceWeight,
    resolve_timesteps,
)


class Rollouts(Spec):
    """What every online method has: prompts to draw images for, and how they are drawn and judged.

    DDIM with noise: `eta` 0 would be deterministic, and nothing could be learnt from it. The guidance scale holds for
    sampling, training and reference alike.
    """

    prompts: Prompts = Field(
        min_length=1, max_length=100_000, description="Training prompts; each iteration takes the next ones, shuffled."
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


class PairedRollouts(Rollouts):
    """Online methods that rank two images: by one reward, or by Pareto dominance of several, where else it is a tie."""

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


class GuidanceSpec(Spec):
    """TailorPO-G: the winner climbs the reward's gradient, and is kept when its own reward rose."""

    eta_min: float = Field(default=0.1, gt=0, le=1e3, description="Step size at the noisiest step (paper: 0.1).")
    eta_max: float = Field(
        default=0.2, gt=0, le=1e3, description="Step size near the image (paper: 0.2); cosine between."
    )
    delta: float = Field(
        default=0.5, gt=0, le=1e6, description="How far above its reward the winner aims; in its unit."
    )
    stop_network_grad: bool = Field(
        default=False, description="Hold the network's noise fixed in the gradient: cheaper, d x0hat/dx = 1/sqrt(abar)."
    )

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.eta_min > self.eta_max:
            raise misfit(f"eta_min ({self.eta_min:g}) is larger than eta_max ({self.eta_max:g})", "eta_min", "eta_max")
        return self


class TailorPOSpec(PairedRollouts):
    """TailorPO and TailorPO-G (arXiv 2502.01667): two candidates from one x_t, ranked by the step-wise reward."""

    type: Literal["tailorpo"] = "tailorpo"
    num_trained_steps: int = Field(
        default=5, ge=1, le=1000, description="Steps of T that branch and train, evenly spaced from the noisiest on."
    )
    guidance: GuidanceSpec | None = Field(
        default=None, description="Set for TailorPO-G; needs a differentiable reward."
    )
    ratio_clamp: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Clamp ratios to 1 +- this, as D3PO's code does; the paper's formula has none.",
    )

    @model_validator(mode="after")
    def _the_steps_fit(self) -> Self:
        _refuse_more_steps_than(self.num_trained_steps, self.num_inference_steps)
        if self.guidance is None:
            return self
        if len(self.rewards) > 1:
            raise misfit("guidance follows the gradient of one reward; rewards names several", "rewards")
        dead = next(filter(None, map(without_gradient, self.rewards)), None)
        if dead is not None:
            raise misfit(
                f"guidance follows the gradient of the reward, and {dead} has none: choose another reward, or leave guidance out",
                "rewards.0",
            )
        return self


class D3POSpec(PairedRollouts):
    """D3PO (arXiv 2311.13231): two trajectories from one starting noise; the better image labels every step."""

    type: Literal["d3po"] = "d3po"
    prompts_per_iteration: int = Field(default=16, ge=1, le=65536, description="Pairs of trajectories an iteration.")
    num_trained_steps: int | None = Field(
        default=None, ge=1, le=1000, description="Steps trained of each pair, drawn at random; all when left out."
    )
    ratio_clamp: float = Field(default=0.1, gt=0, lt=1, description="Ratios are clamped to 1 +- this (released code).")

    @model_validator(mode="after")
    def _the_steps_fit(self) -> Self:
        _refuse_more_steps_than(self.num_trained_steps or 1, self.num_inference_steps)
        return self


class PolicyGradientRollouts(Rollouts):
    """Online methods that weigh every step of a trajectory by the reward of its image."""

    reward: RewardSpec
    prompts_per_iteration: int = Field(default=16, ge=1, le=65536, description="Prompts drawn for in one iteration.")
    samples_per_prompt: int = Field(default=1, ge=1, le=1024, description="Trajectories of each prompt an iteration.")
    ratio_clamp: float = Field(default=1e-4, gt=0, lt=1, description="c: ratios are clamped to 1 +- c (published).")


class DDPOSpec(PolicyGradientRollouts):
    """DDPO (arXiv 2305.13301): the PPO loss over the denoising steps, with normalised rewards as advantages."""

    type: Literal["ddpo"] = "ddpo"
    num_trained_steps: int | None = Field(
        default=None, ge=1, le=1000, description="Steps trained of each trajectory, drawn at random; all when left out."
    )
    advantage: Literal["batch", "prompt"] = Field(
        default="batch", description="Normalise rewards over the iteration, or over each prompt's own samples."
    )
    advantage_clip: float = Field(default=5.0, gt=0, description="Advantages are clipped to +- this (published).")

    @model_validator(mode="after")
    def _the_settings_fit(self) -> Self:
        _refuse_more_steps_than(self.num_trained_steps or 1, self.num_inference_steps)
        if self.advantage == "prompt" and self.samples_per_prompt < 2:
            raise misfit(
                "advantage `prompt` compares a prompt's own samples: samples_per_prompt must be at least 2",
                "samples_per_prompt",
                "advantage",
            )
        if self.advantage == "batch" and self.samples_per_prompt * self.prompts_per_iteration < 2:
            raise misfit(
                "advantage `batch` of a single trajectory is always 0: draw at least 2 an iteration",
                "prompts_per_iteration",
            )
        return self


class ValueNetworkSpec(Spec):
    """V(x_t, prompt, t), regressed on the final reward once an iteration, in one Adam step."""

    learning_rate: float = Field(default=1e-4, gt=0, le=1, description="Published: 1e-4.")
    batch_size: int = Field(default=256, ge=1, le=65536, description="Transitions in one forward (published: 256).")
    num_batches: int = Field(default=5, ge=1, le=1000, description="Forwards in the one step (published: 5).")
    width: int = Field(default=64, ge=4, le=4096, description="Width of its layers (ours).")


class DPOKSpec(PolicyGradientRollouts):
    """DPOK (arXiv 2305.16381): policy gradient with a hard clamp and a squared distance to the reference's prediction."""

    type: Literal["dpok"] = "dpok"
    guidance_scale: float = Field(default=7.5, ge=1, le=100, description="Guidance everywhere (published: 7.5).")
    reward_weight: float = Field(default=10.0, gt=0, le=1e9, description="w_r (published: 10; 1000 for many prompts).")
    kl_weight: float = Field(default=0.01, ge=0, le=1e9, description="w_kl (published: 0.01; 0.1 for many prompts).")
    updates_per_iteration: int = Field(default=5, ge=1, le=10_000, description="Optimiser steps an iteration.")
    buffer_iterations: int = Field(
        default=2, ge=1, le=100, description="Iterations whose transitions are replayed (published: the last 1000)."
    )
    baseline: Literal["none", "batch", "prompt", "value"] = Field(
        default="none",
        description="`none`: A = R (published, without value network). `value`: R - V, the published value network. `batch`: R "
        "less the iteration's mean; `prompt`: R less the mean of the prompt's own samples.",
    )
    value_network: ValueNetworkSpec | None = Field(
        default=None, description="For `baseline: value`; its defaults when left out."
    )

    @model_validator(mode="after")
    def _the_baseline_has_what_it_needs(self) -> Self:
        if self.value_network is not None and self.baseline != "value":
            raise misfit(f"value_network is read by baseline `value`, not by `{self.baseline}`", "value_network")
        if self.baseline == "prompt" and self.samples_per_prompt < 2:
            raise misfit(
                "baseline `prompt` compares a prompt's own samples: samples_per_prompt must be at least 2",
                "samples_per_prompt",
                "baseline",
            )
        return self


def resolve_value_network(method: DPOKSpec) -> DPOKSpec:
    """The same method with the value network written out, where it has one."""
    if method.baseline != "value" or method.value_network is not None:
        return method
    return method.model_copy(update={"value_network": ValueNetworkSpec()})


def _refuse_more_steps_than(trained: int, total: int) -> None:
    if trained > total:
        raise misfit(
            f"num_trained_steps ({trained}) is larger than num_inference_steps ({total})",
            "num_trained_steps",
            "num_inference_steps",
        )


OnlineMethodSpec = TailorPOSpec | D3POSpec | DDPOSpec | DPOKSpec
OF_A_STEP = ("training.batch_size", "training.gradient_accumulation_steps")


def transitions_per_iteration(method: D3POSpec | DDPOSpec | DPOKSpec) -> int:
    """Steps of trajectories that an iteration has to train on; of pairs of trajectories for D3PO."""
    samples = 1 if isinstance(method, D3POSpec) else method.samples_per_prompt
    trained = None if isinstance(method, DPOKSpec) else method.num_trained_steps
    return method.prompts_per_iteration * samples * (trained or method.num_inference_steps)


def steps_per_iteration(method: OnlineMethodSpec, examples_per_step: int) -> int:
    """Optimiser steps between two draws of new trajectories.

    `examples_per_step` is batch size x accumulation; TailorPO's are prompts, the others' are steps of trajectories.
    A misfit of `JobSpec` where an iteration does not divide into optimiser steps.
    """
    match method:
        case TailorPOSpec():
            return method.num_trained_steps
        case DPOKSpec():
            held = transitions_per_iteration(method)
            if examples_per_step > held:
                raise misfit(
                    f"an iteration has {held} transitions, fewer than the {examples_per_step} of one step "
                    "(training.batch_size x gradient_accumulation_steps)",
                    *OF_A_STEP,
                    "method.prompts_per_iteration",
                )
            return method.updates_per_iteration
        case D3POSpec() | DDPOSpec():
            total = transitions_per_iteration(method)
            if total % examples_per_step:
                raise misfit(
                    f"an iteration trains {total} transitions, and training.batch_size x gradient_accumulation_steps "
                    f"({examples_per_step}) does not divide them",
                    *OF_A_STEP,
                    "method.prompts_per_iteration",
                )
            return total // examples_per_step


# --- what the plug-ins may be ------------------------------------------------------------------------------------------


def refuse_unfit_timesteps(method: OnlineMethodSpec, timesteps: TimestepSpec, examples_per_step: int) -> None:
    """Samplers choose among the steps of trajectories; lambda(t) needs a logit, or DPOK's two terms."""
    chosen = resolve_timesteps(timesteps, reference_is_copied=False)
    if isinstance(chosen, UniformTimesteps):
        return
    if isinstance(method, DDPOSpec) and chosen.reward_scale != ConstantScale():
        raise misfit(
            "timesteps.reward_scale multiplies a preference logit, and ddpo has none: give it a sampler or a loss_weight",
            "timesteps.reward_scale",
            "timesteps",
        )
    weight = chosen.loss_weight
    watches_advantages = isinstance(method, DDPOSpec | DPOKSpec)
    if watches_advantages and isinstance(weight, VarianceWeight) and weight.stat_against == "initial":
        raise misfit(
            f"timesteps.loss_weight.stat_against must be reference for {method.type}: its signal is the advantage, which "
            "is measured against no model",
            "timesteps.loss_weight.stat_against",
        )
    if isinstance(chosen.sampler, TableSampler):
        _refuse_short_table(method, chosen.sampler, examples_per_step)


def _refuse_short_table(method: OnlineMethodSpec, sampler: TableSampler, examples_per_step: int) -> None:
    total, bins = method.num_inference_steps, len(sampler.probabilities)
    if bins > total:
        raise misfit(
            f"timesteps.num_bins ({bins}) is larger than method.num_inference_steps ({total}), and the sampler of "
            f"{method.type} draws from those",
            "timesteps.num_bins",
            "timesteps.sampler",
        )
    possible = sum(probability > 0 for probability in sampler.over_steps(total))
    match method:
        case DPOKSpec():
            held = method.prompts_per_iteration * method.samples_per_prompt
            possible, wanted = held * possible, examples_per_step
        case TailorPOSpec() | D3POSpec() | DDPOSpec():
            wanted = method.num_trained_steps or total
    if wanted > possible:
        raise misfit(
            f"timesteps.sampler.probabilities leave {possible} steps to draw from, and {method.type} trains {wanted} "
            "different ones",
            "timesteps.sampler.probabilities",
        )


def refuse_unfit_reference(method: OnlineMethodSpec, reference: ReferenceSpec) -> None:
    """A reference may move where the loss has one, and its drift is measured where there is something to measure it on."""
    chosen = resolve_reference(reference, is_lora=False, is_online=True)
    if isinstance(chosen, FrozenReference):
        return
    if drift_metric(chosen) == "mse_gap":
        raise misfit(
            f"reference: the metric mse_gap compares errors on the winners of preference data, and {method.type} has none: "
            "choose eps_dist",
            "reference.guard.metric",
            "reference.metric",
        )
