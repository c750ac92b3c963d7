"""The method that learns from single judged images, as frozen data; re-exported by `spec`. `docs/methods.md` has the equations."""

from typing import ClassVar, Literal

from pydantic import Field

from alignment_core.spec.base import misfit
from alignment_core.spec.method import LORA_HIGH, LearnsFrom, MethodBase, Recipe, Recipes, small_beta
from alignment_core.spec.pairs import TransformSpec, random_images
from alignment_core.spec.sources import DatasetSpec

MIN_BATCH_SIZE = 8  # Q is the mean of a micro-batch: over fewer images it is noise (ours)


class DiffusionKTOSpec(MethodBase):
    """Diffusion-KTO (arXiv 2404.04465) on images that were liked or disliked; of a pair, one is each.

    Q is a mean over `training.batch_size` images, which must be at least 8, and changes with it.
    """

    learns_from: ClassVar[LearnsFrom] = "images"
    usual_batch_size: ClassVar[int] = MIN_BATCH_SIZE
    recipes: ClassVar[Recipes] = {
        "full": Recipe(1e-7, 1e-6, "Diffusion-KTO's paper", warmup_steps=200),
        "lora": Recipe(1e-5, LORA_HIGH, "ours: as Diffusion-DPO's LoRA"),
    }

    type: Literal["diffusion_kto"] = "diffusion_kto"
    dataset: DatasetSpec
    beta: float = Field(
        default=1000.0,
        gt=0,
        le=1e7,
        description="z = beta (g - Q), without the 1/2 of Diffusion-DPO: half as large for the same strength. Released "
        "code: 1000.",
    )
    utility: Literal["sigmoid", "loss_averse"] = Field(
        default="sigmoid", description="U of the loss 1 - U(z): sigma(z) (released code), or log sigma(z)."
    )
    baseline: Literal["batch_mean", "class_mean", "mismatched"] = Field(
        default="batch_mean",
        description="Q: max(0, mean g) (released code); the mean of both classes' means; or the mean g under prompts of "
        "other images, which costs two more forward passes.",
    )
    like_weight: float = Field(default=1.0, gt=0, le=1e3, description="w_1, multiplies the loss of liked images.")
    dislike_weight: float = Field(default=1.0, gt=0, le=1e3, description="w_0, multiplies that of disliked ones.")
    like_probability: float | None = Field(
        default=0.8,
        ge=0,
        le=1,
        description="Share of likes in a batch (published: 0.8), drawn with replacement; null takes every image once an "
        "epoch, in the data's own proportion.",
    )
    caption_dropout: float = Field(
        default=0.2, ge=0, le=1, description="Share of images trained without their prompt (published: 0.2)."
    )
    transform: TransformSpec = TransformSpec()

    @property
    def data(self) -> DatasetSpec:
        return self.dataset

    @property
    def resolution(self) -> int | None:
        return self.transform.resolution

    def refuse_batch(self, batch_size: int, examples_per_step: int) -> None:
        """A misfit of `JobSpec` where Q would be the mean of too few images."""
        if batch_size < MIN_BATCH_SIZE:
            raise misfit(
                f"training.batch_size ({batch_size}) is too small for {self.type}: its baseline Q is a mean over the images of "
                f"one forward pass, and needs at least {MIN_BATCH_SIZE}",
                "training.batch_size",
            )

    def why_not_in_blocks(self) -> str | None:
        if self.like_probability is not None:
            return (
                "like_probability draws images with replacement, from all of them; set method.like_probability to null"
            )
        return None

    def why_not_remembered(self) -> str | None:
        if self.baseline == "mismatched":
            return "its baseline mismatched asks the reference under prompts of other images, at each visit others"
        return random_images(self.transform)

    def warnings(self, examples_per_step: int) -> list[str]:
        found = small_beta(self.beta)
        if self.like_probability in (0, 1):
            only = "liked" if self.like_probability == 1 else "disliked"
            found.append(
                f"like_probability {self.like_probability:g} trains on {only} images alone: nothing tells good from bad"
            )
        return found


ImageMethodSpec = DiffusionKTOSpec
