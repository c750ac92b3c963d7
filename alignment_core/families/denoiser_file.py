"""A whole U-Net or transformer in one safetensors file under diffusers' names, as far as its header tells."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from alignment_core.reports import LoraReport

# Of each family's network two weights that no LoRA has.
MARKS = (
    {"conv_in.weight", "conv_out.weight", "time_embedding.linear_1.weight"},
    {"pos_embed.proj.weight", "context_embedder.weight", "proj_out.weight"},
    {"x_embedder.weight", "context_embedder.weight", "proj_out.weight"},
)


def denoiser_report(path: Path) -> LoraReport | None:
    """What such a file holds; None for a file of another kind. Whether it fits a model shows when it is put into one."""
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
    except (OSError, SafetensorError):
        return None
    if not any(mark <= names for mark in MARKS):
        return None
    num_layers = sum(name.endswith(".weight") for name in names)
    return LoraReport(
        holds="denoiser",
        format="diffusers",
        num_layers=num_layers,
        ranks=[],
        alphas=[],
        changes_text_encoder=False,
    )
