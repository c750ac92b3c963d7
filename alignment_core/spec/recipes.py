"""What is left out of `training`, by method and adapter: batch, learning rate and warm-up; re-exported by `spec`.

A published learning rate belongs to a batch and a warm-up. Where a recipe says how the rate follows the batch, so does the
default; `docs/methods.md` has every number beside the published one.
"""

from dataclasses import dataclass

from alignment_core.spec.online import (
    D3POSpec,
    DDPOSpec,
    DPOKSpec,
    OnlineMethodSpec,
    TailorPOSpec,
    transitions_per_iteration,
)
from alignment_core.spec.pairs import DiffusionDPOSpec, MaPOSpec
from alignment_core.spec.training import AdapterSpec, TrainingSpec
from alignment_core.spec.unpaired import MIN_BATCH_SIZE, DiffusionKTOSpec

AnyMethodSpec = DiffusionDPOSpec | DiffusionKTOSpec | MaPOSpec | OnlineMethodSpec

BATCH_SIZE = 4
EXAMPLES_PER_STEP = 64  # below this a Diffusion-DPO update barely moves u (ours; published: 2048 pairs)


@dataclass(frozen=True)
class Recipe:
    """A learning rate with what it was published with.

    `high` is where a rate is warned of. Both are for one example of an update where `follows_batch`, and then multiplied by the
    effective batch on one device.
    """

    rate: float
    high: float
    source: str
    warmup_steps: int = 0
    follows_batch: bool = False

    def learning_rate(self, examples_per_step: int) -> float:
        return self.rate * examples_per_step if self.follows_batch else self.rate

    def high_learning_rate(self, examples_per_step: int) -> float:
        return self.high * examples_per_step if self.follows_batch else self.high

    def told(self, examples_per_step: int) -> str:
        """The source of the learning rate, as a sentence's end."""
        if not self.follows_batch:
            return self.source
        return f"{self.source}: {self.rate:g} x {examples_per_step} examples an update on one device"

    def warmup_within(self, steps: int) -> int:
        """The published warm-up, or in a short run its first quarter: Diffusion-DPO warms up over 500 of 2000 steps."""
        return min(self.warmup_steps, steps // 4)


LORA_HIGH = 5e-3  # ten times the highest published: the default of diffusers' Diffusion-DPO scripts, 5e-4
RECIPES = {
    # 5e-8 where the launcher has 1e-8 collapses (Kang et al., arXiv 2505.18736)
    ("diffusion_dpo", "full"): Recipe(
        1e-8, 5e-8, "the released Diffusion-DPO launcher", warmup_steps=500, follows_batch=True
    ),
    ("diffusion_dpo", "lora"): Recipe(1e-5, LORA_HIGH, "diffusers' Diffusion-DPO LoRA scripts"),
    ("diffusion_kto", "full"): Recipe(1e-7, 1e-6, "Diffusion-KTO's paper", warmup_steps=200),
    ("diffusion_kto", "lora"): Recipe(1e-5, LORA_HIGH, "ours: as Diffusion-DPO's LoRA"),
    ("mapo", "full"): Recipe(1e-5, 1e-4, "MaPO's released code, for SDXL"),
    ("mapo", "lora"): Recipe(1e-5, LORA_HIGH, "MaPO's released code, for SDXL"),
    ("tailorpo", "full"): Recipe(1e-6, 1e-5, "ours: D3PO's LoRA rate over 30, DDPO's ratio of the two"),
    ("tailorpo", "lora"): Recipe(3e-5, LORA_HIGH, "TailorPO's paper, which takes D3PO's"),
    ("d3po", "full"): Recipe(1e-6, 1e-5, "ours: D3PO's LoRA rate over 30, DDPO's ratio of the two"),
    ("d3po", "lora"): Recipe(3e-5, LORA_HIGH, "D3PO's released code"),
    ("ddpo", "full"): Recipe(1e-5, 1e-4, "DDPO's own code, which trains every weight"),
    ("ddpo", "lora"): Recipe(3e-4, LORA_HIGH, "DDPO's PyTorch code"),
    ("dpok", "full"): Recipe(3e-7, 3e-6, "ours: DPOK's LoRA rate over 30, DDPO's ratio of the two"),
    ("dpok", "lora"): Recipe(1e-5, LORA_HIGH, "DPOK's released code"),
}
GIVEN = "given in the spec"


def recipe_of(method: AnyMethodSpec, adapter: AdapterSpec) -> Recipe:
    """What is published for this method and adapter."""
    return RECIPES[method.type, adapter.type]


def resolve_training(training: TrainingSpec, method: AnyMethodSpec, adapter: AdapterSpec) -> TrainingSpec:
    """The same with batch, learning rate and warm-up written out, and where the learning rate comes from.

    Who gives a learning rate gives its warm-up too: left out, there is none.
    """
    batch_size, accumulation = batch_of(training, method)
    recipe, examples = recipe_of(method, adapter), batch_size * accumulation
    rate = recipe.learning_rate(examples) if training.learning_rate is None else training.learning_rate
    warmup = recipe.warmup_within(training.steps) if training.learning_rate is None else 0
    return training.model_copy(
        update={
            "batch_size": batch_size,
            "gradient_accumulation_steps": accumulation,
            "learning_rate": rate,
            "learning_rate_source": recipe.told(examples) if rate == recipe.learning_rate(examples) else GIVEN,
            "warmup_steps": warmup if training.warmup_steps is None else training.warmup_steps,
        }
    )


def batch_of(training: TrainingSpec, method: AnyMethodSpec) -> tuple[int, int]:
    """Examples in a forward pass, and forward passes in a step; what is left out fits the method."""
    batch_size, accumulation = training.batch_size, training.gradient_accumulation_steps
    usual = MIN_BATCH_SIZE if isinstance(method, DiffusionKTOSpec) else BATCH_SIZE
    sizes = [batch_size] if batch_size is not None else [usual, *range(usual - 1, 0, -1)]
    passes = [accumulation] if accumulation is not None else range(EXAMPLES_PER_STEP // usual, 0, -1)
    choices = [(size, num) for size in sizes for num in passes]
    return next((choice for choice in choices if _divides(choice[0] * choice[1], method)), choices[0])


def _divides(examples_per_step: int, method: AnyMethodSpec) -> bool:
    """Whether an iteration of the method can be cut into steps of this many examples."""
    match method:
        case D3POSpec() | DDPOSpec():
            return transitions_per_iteration(method) % examples_per_step == 0
        case DPOKSpec():
            return examples_per_step <= transitions_per_iteration(method)
        case DiffusionDPOSpec() | DiffusionKTOSpec() | MaPOSpec() | TailorPOSpec():
            return True
