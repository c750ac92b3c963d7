"""Draws images from the demo model: DDIM, 12 steps, guidance 2.5, unless told otherwise."""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import Tensor

NUM_INFERENCE_STEPS = 12
GUIDANCE_SCALE = 2.5


def load_pipeline(folder: Path | str) -> StableDiffusionPipeline:
    """The pipeline in `folder`: local files and safetensors only, no progress bar."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, safety_checker=None, local_files_only=True, use_safetensors=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def draw_samples(pipeline: StableDiffusionPipeline, prompts: Sequence[str], seed: int, batch_size: int = 64) -> Tensor:
    """One image a prompt, [B, 3, H, W] in [0, 1]; the same seed gives the same images."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for start in range(0, len(prompts), batch_size):
        output = pipeline(
            prompt=list(prompts[start : start + batch_size]),
            num_inference_steps=NUM_INFERENCE_STEPS,
            guidance_scale=GUIDANCE_SCALE,
            generator=generator,
            output_type="pt",
        )
        batches.append(output.images)  # pyright: ignore[reportAttributeAccessIssue]
    return torch.cat(batches).float()
