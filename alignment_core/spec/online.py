"""The methods that draw their own images, as frozen data; re-exported by `spec`. `docs/methods.md` has the equations."""

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from alignment_core.spec.base import Spec, misfit
from alignment_core.spec.method import LORA_HIGH, Recipe, Recipes
from alignment_core.spec.rewards import without_gradient
from alignment_core.spec.rollouts import PairedRollouts, PolicyGradientRollouts, with_fewer_prompts

OF_A_STEP = ("training.batch_size", "training.gradient_accumulation_steps")


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

    recipes: ClassVar[Recipes] = {
        "full": Recipe(1e-6, 1e-5, "ours: D3PO's LoRA rate over 30, DDPO's ratio of the two"),
        "lora": Recipe(3e-5, LORA_HIGH, "TailorPO's paper, which takes D3PO's"),
    }

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

    @property
    def trained_steps(self) -> int:
        return self.num_trained_steps

    def must_have_noise(self, silent: frozenset[int]) -> frozenset[int]:
        """The evenly spaced steps, of which none can be another."""
        total = self.num_inference_steps
        return silent & {number * total // self.num_trained_steps for number in range(self.num_trained_steps)}

    @property
    def keeps_predictions(self) -> bool:
        """Of the first micro-batch of a step, whose weights are still those that drew."""
        return True

    @property
    def climbs_through(self) -> Literal["decoder", "network"] | None:
        if self.guidance is None:
            return None
        return "decoder" if self.guidance.stop_network_grad else "network"

    def steps_per_turn(self, examples_per_step: int) -> int:
        """An iteration takes a step at each branch; `examples_per_step` are prompts."""
        return self.num_trained_steps

    def trajectories_of_a_turn(self, examples_per_step: int) -> int:
        return examples_per_step

    @property
    def forwards_of_a_trajectory(self) -> int:
        """To the last branch, and for both sides of each; a winner that climbs is foreseen, followed back and foreseen again."""
        last = (self.num_trained_steps - 1) * self.num_inference_steps // self.num_trained_steps
        climbing = 0 if self.guidance is None else 2 if self.guidance.stop_network_grad else 3
        return last + 1 + self.num_trained_steps * (2 + climbing)

    @property
    def judged_of_a_trajectory(self) -> int:
        """Both sides of each branch, and a winner that climbs: followed back, which takes as long as two more, and again."""
        return self.num_trained_steps * (2 if self.guidance is None else 6)


class D3POSpec(PairedRollouts):
    """D3PO (arXiv 2311.13231): two trajectories from one starting noise; the better image labels every step."""

    recipes: ClassVar[Recipes] = {
        "full": Recipe(1e-6, 1e-5, "ours: D3PO's LoRA rate over 30, DDPO's ratio of the two"),
        "lora": Recipe(3e-5, LORA_HIGH, "D3PO's released code"),
    }

    states_per_example: ClassVar[int] = 2

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

    @property
    def transitions_per_iteration(self) -> int:
        """Steps of pairs of trajectories that an iteration trains."""
        return self.prompts_per_iteration * self.trained_steps

    @property
    def trained_steps(self) -> int:
        return self.num_trained_steps or self.num_inference_steps

    @property
    def trains_every_step(self) -> bool:
        return self.trained_steps == self.num_inference_steps

    def divides_into(self, examples_per_step: int) -> bool:
        return self.transitions_per_iteration % examples_per_step == 0

    def refuse_batch(self, batch_size: int, examples_per_step: int) -> None:
        _refuse_uneven(self.transitions_per_iteration, examples_per_step)

    def steps_per_turn(self, examples_per_step: int) -> int:
        """An iteration trains every transition once."""
        return self.transitions_per_iteration // examples_per_step

    def trajectories_of_a_turn(self, examples_per_step: int) -> int:
        return 2 * self.prompts_per_iteration

    @property
    def forwards_of_a_trajectory(self) -> float:
        """Both of a pair begin with one forward of the noise that they share."""
        return self.num_inference_steps - 0.5

    def with_shorter_turns(self) -> Iterator[Self]:
        return with_fewer_prompts(self, self.prompts_per_iteration)


class DDPOSpec(PolicyGradientRollouts):
    """DDPO (arXiv 2305.13301): the PPO loss over the denoising steps, with normalised rewards as advantages."""

    has_reference: ClassVar[bool] = False
    takes_reward_scale: ClassVar[bool] = False
    recipes: ClassVar[Recipes] = {
        "full": Recipe(1e-5, 1e-4, "DDPO's own code, which trains every weight"),
        "lora": Recipe(3e-4, LORA_HIGH, "DDPO's PyTorch code"),
    }

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

    @property
    def transitions_per_iteration(self) -> int:
        """Steps of trajectories that an iteration trains."""
        return self.prompts_per_iteration * self.samples_per_prompt * self.trained_steps

    @property
    def trained_steps(self) -> int:
        return self.num_trained_steps or self.num_inference_steps

    @property
    def trains_every_step(self) -> bool:
        return self.trained_steps == self.num_inference_steps

    def divides_into(self, examples_per_step: int) -> bool:
        return self.transitions_per_iteration % examples_per_step == 0

    def refuse_batch(self, batch_size: int, examples_per_step: int) -> None:
        _refuse_uneven(self.transitions_per_iteration, examples_per_step)

    def steps_per_turn(self, examples_per_step: int) -> int:
        """An iteration trains every transition once."""
        return self.transitions_per_iteration // examples_per_step


class ValueNetworkSpec(Spec):
    """V(x_t, prompt, t), regressed on the final reward once an iteration, in one Adam step."""

    learning_rate: float = Field(default=1e-4, gt=0, le=1, description="Published: 1e-4.")
    batch_size: int = Field(default=256, ge=1, le=65536, description="Transitions in one forward (published: 256).")
    num_batches: int = Field(default=5, ge=1, le=1000, description="Forwards in the one step (published: 5).")
    width: int = Field(default=64, ge=4, le=4096, description="Width of its layers (ours).")


class DPOKSpec(PolicyGradientRollouts):
    """DPOK (arXiv 2305.16381): policy gradient with a hard clamp and a squared distance to the reference's prediction."""

    recipes: ClassVar[Recipes] = {
        "full": Recipe(3e-7, 3e-6, "ours: DPOK's LoRA rate over 30, DDPO's ratio of the two"),
        "lora": Recipe(1e-5, LORA_HIGH, "DPOK's released code"),
    }

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

    @property
    def transitions_per_iteration(self) -> int:
        """Steps of trajectories that an iteration draws."""
        return self.prompts_per_iteration * self.samples_per_prompt * self.num_inference_steps

    def drawn_together(self, num_steps: int, examples_per_step: int) -> tuple[int, int]:
        """A step draws from everything that is in the buffer after the first iteration."""
        return self.prompts_per_iteration * self.samples_per_prompt * num_steps, examples_per_step

    def divides_into(self, examples_per_step: int) -> bool:
        return examples_per_step <= self.transitions_per_iteration

    def refuse_batch(self, batch_size: int, examples_per_step: int) -> None:
        if not self.divides_into(examples_per_step):
            raise misfit(
                f"an iteration has {self.transitions_per_iteration} transitions, fewer than the {examples_per_step} of one step "
                "(training.batch_size x gradient_accumulation_steps x resources.processes)",
                *OF_A_STEP,
                "method.prompts_per_iteration",
            )

    def steps_per_turn(self, examples_per_step: int) -> int:
        return self.updates_per_iteration

    def resolved(self) -> Self:
        """The same with the value network written out, where it has one."""
        if self.baseline != "value" or self.value_network is not None:
            return self
        return self.model_copy(update={"value_network": ValueNetworkSpec()})


def _refuse_more_steps_than(trained: int, total: int) -> None:
    if trained > total:
        raise misfit(
            f"num_trained_steps ({trained}) is larger than num_inference_steps ({total})",
            "num_trained_steps",
            "num_inference_steps",
        )


def _refuse_uneven(transitions: int, examples_per_step: int) -> None:
    if transitions % examples_per_step:
        raise misfit(
            f"an iteration trains {transitions} transitions, and training.batch_size x gradient_accumulation_steps x "
            f"resources.processes ({examples_per_step}) does not divide them",
            *OF_A_STEP,
            "method.prompts_per_iteration",
        )


OnlineMethodSpec = TailorPOSpec | D3POSpec | DDPOSpec | DPOKSpec
