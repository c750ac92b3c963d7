"""The methods that learn from preference pairs, as frozen data; re-exported by `spec`. `docs/methods.md` has the equations."""

from typing import ClassVar, Literal, Self, assert_never

from pydantic import Field, model_validator

from alignment_core.spec.base import Spec, misfit
from alignment_core.spec.method import LORA_HIGH, LearnsFrom, MethodBase, Recipe, Recipes, small_beta
from alignment_core.spec.sources import DatasetSpec


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


def random_images(transform: TransformSpec) -> str | None:
    """Why nothing can be remembered of images that are another at each visit."""
    return "method.transform is random, so that its images are others at each visit" if transform.is_random else None


class DiffusionDPOSpec(MethodBase):
    """Diffusion-DPO (arXiv 2311.12908) on preference pairs, with the loss variants of `docs/methods.md`."""

    learns_from: ClassVar[LearnsFrom] = "pairs"
    images_per_example: ClassVar[int] = 2
    recipes: ClassVar[Recipes] = {
        # 5e-8 where the launcher has 1e-8 collapses (Kang et al., arXiv 2505.18736)
        "full": Recipe(1e-8, 5e-8, "the released Diffusion-DPO launcher", warmup_steps=500, follows_batch=True),
        "lora": Recipe(1e-5, LORA_HIGH, "diffusers' Diffusion-DPO LoRA scripts"),
    }

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
    flow_beta: Literal["constant", "one_minus_s_squared"] = Field(
        default="constant",
        description="Flow matching: `one_minus_s_squared` multiplies errors by (1 - s)^2, which gives epsilon's weighting.",
    )
    transform: TransformSpec = TransformSpec()

    @model_validator(mode="after")
    def _loss_options_fit_the_loss(self) -> Self:
        if self.label_smoothing is not None and self.loss not in ("cdpo", "robust"):
            raise misfit(
                f"label_smoothing is read by the losses cdpo and robust, not by {self.loss!r}", "label_smoothing"
            )
        if self.dmpo_alpha is not None and self.loss != "dmpo":
            raise misfit(f"dmpo_alpha is read by the loss dmpo, not by {self.loss!r}", "dmpo_alpha")
        return self

    @property
    def data(self) -> DatasetSpec:
        return self.dataset

    @property
    def resolution(self) -> int | None:
        return self.transform.resolution

    @property
    def drops_ties(self) -> bool:
        return self.ties == "drop"

    @property
    def needs_v_prediction(self) -> bool:
        return self.v_rescale != "none"

    @property
    def needs_flow(self) -> bool:
        return self.flow_beta != "constant"

    def why_not_remembered(self) -> str | None:
        return random_images(self.transform)

    def resolved(self) -> Self:
        """The same with the loss's own options written out."""
        match self.loss:
            case "cdpo" | "robust":
                left_out = {"label_smoothing": 0.1} if self.label_smoothing is None else {}
            case "dmpo":
                left_out = {"dmpo_alpha": 0.01} if self.dmpo_alpha is None else {}
            case "sigmoid" | "hinge" | "ipo":
                left_out = {}
            case _:
                assert_never(self.loss)
        return self.model_copy(update=left_out)

    def warnings(self, examples_per_step: int) -> list[str]:
        found = []
        if examples_per_step < 64:
            found.append(
                f"{examples_per_step} pairs per optimiser step: published recipes use 2048, and batches below 64 "
                "barely move the model"
            )
        if self.loss == "robust":
            found.append("the robust loss is unbounded below: watch the validation margin and stop early")
        return found + small_beta(self.beta)


class MaPOSpec(MethodBase):
    """MaPO (arXiv 2406.06424) on preference pairs: needs no reference model, and none can be asked for."""

    learns_from: ClassVar[LearnsFrom] = "pairs"
    images_per_example: ClassVar[int] = 2
    has_reference: ClassVar[bool] = False
    recipes: ClassVar[Recipes] = {
        "full": Recipe(1e-5, 1e-4, "MaPO's released code, for SDXL"),
        "lora": Recipe(1e-5, LORA_HIGH, "MaPO's released code, for SDXL"),
    }

    type: Literal["mapo"] = "mapo"
    dataset: DatasetSpec
    beta: float = Field(
        default=0.1,
        gt=0,
        le=1e6,
        description="Weight of the margin beside the winner's own error (released code: 0.1). Not comparable with "
        "Diffusion-DPO's beta.",
    )
    kappa: float = Field(default=0.5, gt=0, le=1e6, description="Multiplies errors inside B(z) (released code: 0.5).")
    logit_scale: float = Field(
        default=1000.0, gt=0, le=1e9, description="T, multiplies the margin inside the sigmoid (released code: 1000)."
    )
    ties: Literal["drop", "keep"] = Field(
        default="drop", description="Pairs with label 0.5: drop (released code), or keep as soft labels."
    )
    caption_dropout: float = Field(
        default=0.0, ge=0, le=1, description="Share of pairs trained without their prompt, one draw a pair."
    )
    transform: TransformSpec = TransformSpec()

    @property
    def data(self) -> DatasetSpec:
        return self.dataset

    @property
    def resolution(self) -> int | None:
        return self.transform.resolution

    @property
    def drops_ties(self) -> bool:
        return self.ties == "drop"

    def warnings(self, examples_per_step: int) -> list[str]:
        if self.beta <= 10:
            return []
        return [f"beta {self.beta:g} drowns the winner's own error, which keeps mapo near its data; published: 0.1"]


PairMethodSpec = DiffusionDPOSpec | MaPOSpec
