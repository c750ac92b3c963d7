"""What is left out of `training`, by method and adapter: batch, learning rate and warm-up; re-exported by `spec`.

A published learning rate belongs to a batch and a warm-up. Where a recipe says how the rate follows the batch, so does the
default; `docs/methods.md` has every number beside the published one.
"""

from alignment_core.spec.method import MethodBase
from alignment_core.spec.training import AdapterSpec, TrainingSpec

EXAMPLES_PER_STEP = 64  # below this a Diffusion-DPO update barely moves u (ours; published: 2048 pairs)
GIVEN = "given in the spec"


def resolve_training(training: TrainingSpec, method: MethodBase, adapter: AdapterSpec, processes: int) -> TrainingSpec:
    """The same with batch, learning rate and warm-up written out, and where the learning rate comes from.

    Who gives a learning rate gives its warm-up too: left out, there is none.
    """
    batch_size, accumulation = batch_of(training, method, processes)
    recipe, examples = method.recipes[adapter.type], batch_size * accumulation * processes
    rate = recipe.learning_rate(examples) if training.learning_rate is None else training.learning_rate
    warmup = recipe.warmup_within(training.steps) if training.learning_rate is None else 0
    return training.model_copy(
        update={
            "batch_size": batch_size,
            "gradient_accumulation_steps": accumulation,
            "learning_rate": rate,
            "learning_rate_source": recipe.source_for(examples) if rate == recipe.learning_rate(examples) else GIVEN,
            "warmup_steps": warmup if training.warmup_steps is None else training.warmup_steps,
        }
    )


def batch_of(training: TrainingSpec, method: MethodBase, processes: int) -> tuple[int, int]:
    """Examples in a forward pass, and forward passes in a step of each process; what is left out fits the method."""
    batch_size, accumulation = training.batch_size, training.gradient_accumulation_steps
    usual = method.usual_batch_size
    sizes = [batch_size] if batch_size is not None else [usual, *range(usual - 1, 0, -1)]
    passes = (
        [accumulation] if accumulation is not None else range(max(1, EXAMPLES_PER_STEP // (usual * processes)), 0, -1)
    )
    choices = [(size, num) for size in sizes for num in passes]
    return next((choice for choice in choices if method.divides_into(choice[0] * choice[1] * processes)), choices[0])
