"""Which runs record their networks' kernels: the run asks, and what estimates its memory."""

from alignment_core.spec.job import JobSpec
from alignment_core.spec.training import trains_text_encoders


def are_recorded(spec: JobSpec, *, on_a_card: bool) -> bool:
    """Whether the networks' kernels are recorded: where shapes stay, and nothing but kernels happens between them."""
    return (
        spec.training.cuda_graphs == "auto"
        and on_a_card
        and spec.resources.strategy == "ddp"  # which is that of one process too; in shares a forward sends weights
        and not spec.training.gradient_checkpointing
        and not trains_text_encoders(spec.adapter)  # they read in the same forward
    )
