"""A whole U-Net or transformer in one safetensors file under diffusers' names, as far as its header tells."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from alignment_core.model_files import layers_of
from alignment_core.reports import LoraReport

# Of each family's network two weights that no LoRA has.
MARKS = (
    {"conv_in.weight", "conv_out.weight", "time_embedding.linear_1.weight"},
    {"pos_embed.proj.weight", "context_embedder.weight", "proj_out.weight"},
    {"x_embedder.weight", "context_embedder.weight", "proj_out.weight"},
)


def denoiser_report(path: Path) -> LoraReport | None:
    """What such a file holds; None for a file of another kind. Its norms and biases show when it is put into a model."""
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  no mapping
    except (OSError, SafetensorError):
        return None
    if not any(mark <= shapes.keys() for mark in MARKS):
        return None
    num_layers = sum(name.endswith(".weight") for name in shapes)
    return LoraReport(
        holds="denoiser",
        format="diffusers",
        num_layers=num_layers,
        ranks=[],
        alphas=[],
        changes_text_encoder=False,
        shapes=dict(layers_of(shapes)),
    )
