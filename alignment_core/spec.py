"""JobSpec: everything that may be asked of a run, as frozen data.

Pure data: with the `spec_*` modules it re-exports it imports pydantic and nothing else, so that the service, the worker,
the client and the library read the same definition. A default lives here or there and nowhere else, with its range and
its source; `docs/methods.md` has the equations.
"""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from alignment_core.spec_base import Spec
from alignment_core.spec_reference import (
    DriftControlledReference,
    EmaReference,
    FrozenReference,
    HardCopyReference,
    ReferenceSpec,
    is_copied_whole,
    resolve_reference,
)
from alignment_core.spec_rewards import (
    AestheticReward,
    AttributeClassifierReward,
    BrightnessReward,
    ClipScoreReward,
    ColorfulnessReward,
    HpsV2Reward,
    HpsV21Reward,
    ImageRewardReward,
    JpegSizeReward,
    PickScoreReward,
    RemoteReward,
    RewardSpec,
    SingleRewardSpec,
    SymmetryReward,
    WeightedPart,
    WeightedSumReward,
    check_unique_names,
    reward_name,
)
from alignment_core.spec_sources import (
    CatalogSource,
    DatasetId,
    DatasetSpec,
    HubSource,
    LocalDataset,
    LocalPath,
    LocalSource,
    ModelSpec,
    Name,
    Prompt,
    StoredDataset,
)
from alignment_core.spec_timesteps import (
    ConstantScale,
    TimestepAware,
    TimestepPreset,
    TimestepSpec,
    UniformSampler,
    UniformTimesteps,
    VarianceWeight,
    resolve_timesteps,
)

# --- methods -------------------------------------------------------------------------------------------------------


class TransformSpec(Spec):
    """From image file to training tensor: shorter side to `resolution` (bilinear), crop, flip, then [-1, 1]."""

    resolution: int | None = Field(
        default=None, ge=8, le=4096, multiple_of=8, description="Pixels; the model's own if left out."
    )
    crop: Literal["center", "random"] = "center"
    horizontal_flip: bool = Field(
        default=False, description="Flip at random; refuses the latent cache, as random crops do."
    )
    joint: bool = Field(
        default=True, description="Draw crop and flip once a pair (diffusers SDXL, MaPO) instead of once an image."
    )

    @property
    def is_random(self) -> bool:
        return self.crop == "random" or self.horizontal_flip


class DiffusionDPOSpec(Spec):
    """Diffusion-DPO (arXiv 2311.12908) on preference pairs, with the loss variants of `docs/methods.md`."""

    type: Literal["diffusion_dpo"] = "diffusion_dpo"
    dataset: DatasetSpec
    beta: float = Field(
        default=5000.0,
        gt=0,
        le=1e7,
        description="Canonical beta: u = -(beta/2)[(m_w-m_l)-(r_w-r_l)] with errors averaged over the latent. "
        "The released launcher's 5000; diffusers' SD 1.5 script writes the same value as 2500.",
    )
    loss: Literal["sigmoid", "hinge", "ipo", "cdpo", "robust", "dmpo"] = "sigmoid"
    label_smoothing: float | None = Field(
        default=None,
        ge=0,
        lt=0.5,
        description="e of `cdpo` and `robust`: share of flipped labels. 0.1 when left out; refused elsewhere.",
    )
    dmpo_alpha: float | None = Field(
        default=None, gt=0, lt=1, description="a of `dmpo` (Diffusion-SDPO's code: 0.01, the default)."
    )
    ties: Literal["drop", "keep"] = Field(
        default="drop", description="Pairs with label 0.5: drop, or keep as soft labels."
    )
    caption_dropout: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of pairs trained without their prompt, one draw a pair (the released launcher: 0.2).",
    )
    reduction: Literal["mean", "sum"] = Field(
        default="mean", description="Errors over the latent: `mean` (canonical) or `sum` (supplement S9)."
    )
    half_factor: bool = Field(
        default=True, description="The factor 1/2 in u; off reproduces configs written as -beta(...)."
    )
    v_rescale: Literal["none", "abar"] = Field(
        default="none", description="v-prediction: `abar` multiplies errors by abar_t, which gives epsilon's weighting."
    )
    transform: TransformSpec = TransformSpec()

    @model_validator(mode="after")
    def _loss_options_fit_the_loss(self) -> Self:
        if self.label_smoothing is not None and self.loss not in ("cdpo", "robust"):
            raise ValueError(f"label_smoothing is read by the losses cdpo and robust, not by {self.loss!r}")
        if self.dmpo_alpha is not None and self.loss != "dmpo":
            raise ValueError(f"dmpo_alpha is read by the loss dmpo, not by {self.loss!r}")
        return self


# --- online methods ------------------------------------------------------------------------------------------------


class Rollouts(Spec):
    """What every online method has: prompts to draw images for, and how they are drawn and judged.

    DDIM with noise: `eta` 0 would be deterministic, and nothing could be learnt from it. The guidance scale holds for
    sampling, training and reference alike.
    """

    prompts: tuple[Prompt, ...] = Field(
        min_length=1, max_length=100_000, description="Training prompts; each iteration takes the next ones, shuffled."
    )
    num_inference_steps: int = Field(default=20, ge=2, le=1000, description="T, the DDIM steps of a trajectory.")
    eta: float = Field(default=1.0, gt=0, le=1, description="DDIM's noise; 1 is the published setting.")
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
            raise ValueError("rewards must have different names; set `name` to tell them apart")
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

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.eta_min > self.eta_max:
            raise ValueError(f"eta_min ({self.eta_min:g}) is larger than eta_max ({self.eta_max:g})")
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

    @model_validator(mode="after")
    def _the_steps_fit(self) -> Self:
        _refuse_more_steps_than(self.num_trained_steps, self.num_inference_steps)
        if self.guidance is not None and len(self.rewards) > 1:
            raise ValueError("guidance follows the gradient of one reward; rewards names several")
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
            raise ValueError(
                "advantage `prompt` compares a prompt's own samples: samples_per_prompt must be at least 2"
            )
        if self.advantage == "batch" and self.samples_per_prompt * self.prompts_per_iteration < 2:
            raise ValueError("advantage `batch` of a single trajectory is always 0: draw at least 2 an iteration")
        return self


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
    baseline: Literal["none", "batch", "prompt"] = Field(
        default="none",
        description="`none`: A = R (published, without value network). `batch`: R less the iteration's mean; `prompt`: R "
        "less the mean of the prompt's own samples.",
    )

    @model_validator(mode="after")
    def _the_baseline_has_samples(self) -> Self:
        if self.baseline == "prompt" and self.samples_per_prompt < 2:
            raise ValueError("baseline `prompt` compares a prompt's own samples: samples_per_prompt must be at least 2")
        return self


def _refuse_more_steps_than(trained: int, total: int) -> None:
    if trained > total:
        raise ValueError(f"num_trained_steps ({trained}) is larger than num_inference_steps ({total})")


OnlineMethodSpec = TailorPOSpec | D3POSpec | DDPOSpec | DPOKSpec
MethodSpec = Annotated[DiffusionDPOSpec | TailorPOSpec | D3POSpec | DDPOSpec | DPOKSpec, Field(discriminator="type")]


def steps_per_iteration(method: OnlineMethodSpec, examples_per_step: int) -> int:
    """Optimiser steps between two draws of new trajectories.

    `examples_per_step` is batch size x accumulation; TailorPO's are prompts, the others' are steps of trajectories.
    `ValueError` where an iteration does not divide into optimiser steps.
    """
    match method:
        case TailorPOSpec():
            return method.num_trained_steps
        case DPOKSpec():
            held = method.prompts_per_iteration * method.samples_per_prompt * method.num_inference_steps
            if examples_per_step > held:
                raise ValueError(f"an iteration has {held} transitions, fewer than the {examples_per_step} of one step")
            return method.updates_per_iteration
        case D3POSpec() | DDPOSpec():
            samples = method.samples_per_prompt if isinstance(method, DDPOSpec) else 1
            trained = method.num_trained_steps or method.num_inference_steps
            total = method.prompts_per_iteration * samples * trained
            if total % examples_per_step:
                raise ValueError(
                    f"an iteration trains {total} transitions, and training.batch_size x gradient_accumulation_steps "
                    f"({examples_per_step}) does not divide them"
                )
            return total // examples_per_step


class LoraAdapter(Spec):
    """Low-rank adapters on the attention projections of the denoiser (peft)."""

    type: Literal["lora"] = "lora"
    rank: int = Field(default=8, ge=1, le=1024, description="diffusers' Diffusion-DPO LoRA scripts: 8.")
    alpha: float | None = Field(
        default=None, gt=0, description="LoRA scale numerator; the rank when left out, so the scale is 1."
    )
    target_modules: tuple[str, ...] = Field(
        default=("to_k", "to_q", "to_v", "to_out.0"),
        min_length=1,
        description="Suffixes of module names in the denoiser.",
    )


class FullFineTune(Spec):
    """Every weight of the denoiser is trained; the reference is a frozen second copy."""

    type: Literal["full"] = "full"


AdapterSpec = Annotated[LoraAdapter | FullFineTune, Field(discriminator="type")]

DEFAULT_LEARNING_RATE = {"lora": 1e-5, "full": 2.048e-5}
# D3PO's code, which TailorPO follows; DDPO's; DPOK's
ONLINE_LEARNING_RATE = {"tailorpo": 3e-5, "d3po": 3e-5, "ddpo": 3e-4, "dpok": 1e-5}


class TrainingSpec(Spec):
    """The optimiser and its schedule. The learning rate is the effective one: nothing scales it behind the scenes."""

    steps: int = Field(default=2000, ge=1, le=1_000_000, description="Optimiser steps.")
    batch_size: int = Field(
        default=4,
        ge=1,
        le=4096,
        description="Examples (pairs, prompts or transitions: `docs/methods.md`) in one forward pass on one device.",
    )
    gradient_accumulation_steps: int = Field(
        default=16, ge=1, le=65536, description="Forward passes in one optimiser step."
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="When left out: Diffusion-DPO 1e-5 for LoRA (diffusers), 2.048e-5 for full fine-tunes (released "
        "launcher); TailorPO and D3PO 3e-5, DDPO 3e-4, DPOK 1e-5 (their papers or code).",
    )
    warmup_steps: int = Field(
        default=0, ge=0, description="Linear warm-up, in optimiser steps (released launcher: 500)."
    )
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    max_grad_norm: float = Field(default=1.0, gt=0, description="Clip threshold of the global gradient norm.")
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    adam_epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32", description="Precision of the networks; errors and logits stay float32."
    )
    gradient_checkpointing: bool = False
    validation_fraction: float = Field(
        default=0.05, ge=0, le=0.5, description="Share of groups held out of training to validate on."
    )
    validate_every: int | None = Field(
        default=None, ge=1, description="Optimiser steps between validations; off when left out."
    )

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps ({self.warmup_steps}) is larger than steps ({self.steps})")
        return self


class EvaluationSpec(Spec):
    """Held-out comparison of the policy with the model it started from: same prompts, same seeds."""

    prompts: tuple[Prompt, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=10_000,
        description="Held-out prompts; those of the validation split when left out.",
    )
    max_prompts: int = Field(
        default=128, ge=1, le=10_000, description="At most this many prompts are used, the first ones."
    )
    seeds_per_prompt: int = Field(
        default=2, ge=1, le=64, description="Images per prompt and model. Diversity needs two."
    )
    rewards: tuple[RewardSpec, ...] = Field(
        default=(), description="Scores in the report. The first one decides the verdict."
    )
    prompt_following: RewardSpec | None = Field(
        default=None, description="A judge of prompt-following that no method optimises."
    )
    num_inference_steps: int = Field(default=20, ge=1, le=1000)
    guidance_scale: float = Field(default=5.0, ge=0, le=100)
    batch_size: int = Field(default=8, ge=1, le=1024, description="Images sampled at once.")
    grid_prompts: int = Field(default=8, ge=1, le=64, description="Prompts shown in the image grid.")
    bootstrap_resamples: int = Field(default=10_000, ge=100, le=1_000_000)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)

    @field_validator("rewards")
    @classmethod
    def _names_are_unique(cls, rewards: tuple[RewardSpec, ...]) -> tuple[RewardSpec, ...]:
        check_unique_names(rewards)
        if "prompt_following" in map(reward_name, rewards):
            raise ValueError("a reward cannot be named prompt_following: the report keeps the name for its judge")
        return rewards


class CheckpointSpec(Spec):
    """When training state is saved. The last step is always saved."""

    every: int = Field(default=500, ge=1, description="Optimiser steps between checkpoints.")
    keep_last: int = Field(default=3, ge=1, le=1000, description="Older checkpoints are removed from the work folder.")


class ResourceSpec(Spec):
    """What the run needs of a machine."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    num_cpu_threads: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="Threads of a run on a CPU; torch's choice when left out. Tiny models want 1.",
    )
    max_run_seconds: int | None = Field(
        default=None, ge=1, description="The run stops, saves and fails with `time_limit` after this long."
    )


class JobSpec(Spec):
    """One alignment run, complete."""

    model: ModelSpec
    method: MethodSpec
    reference: ReferenceSpec = FrozenReference()
    timesteps: TimestepSpec = UniformTimesteps()
    adapter: AdapterSpec = LoraAdapter()
    training: TrainingSpec = TrainingSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    checkpoints: CheckpointSpec = CheckpointSpec()
    resources: ResourceSpec = ResourceSpec()
    seed: int = Field(default=0, ge=0, lt=2**63, description="Every random draw of the run follows from it.")

    @model_validator(mode="after")
    def _the_online_method_fits_the_run(self) -> Self:
        if isinstance(self.method, DiffusionDPOSpec):
            return self
        every = steps_per_iteration(self.method, self.training.batch_size * self.training.gradient_accumulation_steps)
        if self.training.validate_every is not None:
            raise ValueError(f"training.validate_every needs preference data to hold out; {self.method.type} has none")
        if isinstance(self.timesteps, TimestepAware | TimestepPreset):
            _refuse_unfit_timesteps(self.method.type, self.timesteps)
        _refuse_unfit_reference(self.method, self.reference, every)
        return self

    @model_validator(mode="after")
    def _the_reference_fits_the_run(self) -> Self:
        is_lora = isinstance(self.adapter, LoraAdapter)
        reference = resolve_reference(self.reference, is_lora=is_lora)
        if isinstance(reference, FrozenReference):
            return self
        if not is_lora and not isinstance(reference, HardCopyReference) and reference.ref_store is not None:
            raise ValueError("reference.ref_store is about LoRA; a full fine-tune averages its weights as they are")
        if is_lora and reference.offload_initial:
            raise ValueError(
                "reference.offload_initial is for full fine-tunes; with LoRA the initial model costs nothing"
            )
        if reference.reg_mode == "through_ema" and self.training.gradient_checkpointing:
            raise ValueError(
                "reference.reg_mode through_ema excludes training.gradient_checkpointing, which would recompute the "
                "reference with the policy's weights"
            )
        return self

    def resolved(self) -> "JobSpec":
        """The same spec with every default that depends on another field written out."""
        method, adapter, training = self.method, self.adapter, self.training
        if isinstance(method, DiffusionDPOSpec):
            method = _resolved_losses(method)
        if isinstance(adapter, LoraAdapter) and adapter.alpha is None:
            adapter = adapter.model_copy(update={"alpha": float(adapter.rank)})
        if training.learning_rate is None:
            training = training.model_copy(update={"learning_rate": _default_learning_rate(method, adapter)})
        reference = resolve_reference(self.reference, is_lora=isinstance(adapter, LoraAdapter))
        timesteps = resolve_timesteps(self.timesteps, reference_is_copied=is_copied_whole(reference))
        return self.model_copy(
            update={
                "method": method,
                "reference": reference,
                "timesteps": timesteps,
                "adapter": adapter,
                "training": training,
            }
        )

    def sha256(self) -> str:
        """Hash of the resolved spec: a work folder is resumed only under the same one.

        How long a run may take and on how many threads is not part of it: a run that hit its limit may be given more.
        """
        patience = {"resources": {"max_run_seconds", "num_cpu_threads"}}
        return sha256_of_json(self.resolved().model_dump(mode="json", exclude=patience))


def _resolved_losses(method: DiffusionDPOSpec) -> DiffusionDPOSpec:
    if method.loss in ("cdpo", "robust") and method.label_smoothing is None:
        return method.model_copy(update={"label_smoothing": 0.1})
    if method.loss == "dmpo" and method.dmpo_alpha is None:
        return method.model_copy(update={"dmpo_alpha": 0.01})
    return method


def _default_learning_rate(method: DiffusionDPOSpec | OnlineMethodSpec, adapter: LoraAdapter | FullFineTune) -> float:
    if isinstance(method, DiffusionDPOSpec):
        return DEFAULT_LEARNING_RATE[adapter.type]
    return ONLINE_LEARNING_RATE[method.type]


def _refuse_unfit_timesteps(method: str, timesteps: TimestepAware | TimestepPreset) -> None:
    """Online methods train on the sampler's own steps; what may differ is how much each counts."""
    chosen = resolve_timesteps(timesteps, reference_is_copied=False)
    assert isinstance(chosen, TimestepAware)
    if not isinstance(chosen.sampler, UniformSampler):
        raise ValueError(f"timesteps.sampler must be uniform for {method}, whose steps are those of its trajectories")
    if method in ("ddpo", "dpok") and chosen.reward_scale != ConstantScale():
        raise ValueError(f"timesteps.reward_scale multiplies a preference logit, and {method} has none")
    if isinstance(chosen.loss_weight, VarianceWeight) and chosen.loss_weight.stat_against == "initial":
        raise ValueError(f"timesteps.loss_weight.stat_against must be reference for {method}")


def _refuse_unfit_reference(method: OnlineMethodSpec, reference: ReferenceSpec, steps: int) -> None:
    """A reference may move between iterations alone: inside one it would re-open clamps and mix two ratios."""
    chosen = resolve_reference(reference, is_lora=False)
    if isinstance(chosen, FrozenReference):
        return
    if isinstance(method, DDPOSpec):
        raise ValueError("ddpo has no reference model: reference must be frozen")
    if isinstance(chosen, DriftControlledReference) or chosen.guard is not None:
        raise ValueError(
            f"{method.type} has no preference data to measure a drift on: choose reference hard_copy or ema with `guard: null`"
        )
    if chosen.reg_mode != "gate":
        raise ValueError(f"reference.reg_mode must be gate for {method.type}")
    if chosen.every % steps:
        raise ValueError(
            f"reference.every ({chosen.every}) must be a multiple of the {steps} optimiser steps of an iteration of "
            f"{method.type}: the reference moves between iterations only"
        )


def _warnings_of_plugins(spec: JobSpec) -> list[str]:
    found = []
    reference, timesteps = spec.reference, spec.timesteps
    if isinstance(timesteps, TimestepAware) and isinstance(reference, FrozenReference):
        found.append("timestep-aware training helped its authors only together with a moving reference, and hurt alone")
    if isinstance(reference, HardCopyReference) and reference.guard is None:
        found.append("copying the policy without a guard diverges in the published experiments: set reference.guard")
    if isinstance(reference, HardCopyReference | DriftControlledReference) and reference.every > spec.training.steps:
        found.append(f"reference.every ({reference.every}) is larger than training.steps: the reference never moves")
    if isinstance(reference, EmaReference | DriftControlledReference) and reference.ref_store == "factor_average":
        found.append("reference.ref_store factor_average is not the average of the weights; dense_delta is")
    return found


def sha256_of_json(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`: sorted keys, no white space."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def warnings_of(spec: JobSpec) -> list[str]:
    """What is allowed but probably not meant, as sentences for `POST /v1/jobs/validate` and the first event."""
    spec, found = spec.resolved(), []
    method = spec.method
    pairs = spec.training.batch_size * spec.training.gradient_accumulation_steps
    if isinstance(method, DiffusionDPOSpec) and pairs < 64:
        found.append(
            f"{pairs} pairs per optimiser step on one device: published recipes use 2048, and batches below 64 barely move u"
        )
    if spec.training.precision == "fp16" and spec.adapter.type == "full":
        found.append("full fine-tunes in fp16 can overflow; bf16 has the range of fp32")
    if not spec.evaluation.rewards:
        found.append("evaluation.rewards is empty: the report will show no proof that the model improved")
    if isinstance(method, DiffusionDPOSpec) and method.loss == "robust":
        found.append("the robust loss is unbounded below: watch the validation margin and stop early")
    found += _warnings_of_plugins(spec)
    if isinstance(method, DiffusionDPOSpec) and method.beta < 10:
        found.append(
            f"beta {method.beta:g} multiplies mean squared errors near 1e-3; language-model values do nothing here"
        )
    return found
